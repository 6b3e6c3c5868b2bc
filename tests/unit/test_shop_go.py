"""The bookshop's Go code: its form, its vet, its own tests, and the code that protoc's plugins write."""

import os
import subprocess
from pathlib import Path

import pytest
from gotools import MARKS
from stackbook.artifacts import go_toolchain, protoc
from stackbook.core import paths

pytestmark = MARKS
MODULE = paths.checkout() / "lib" / "shop"


def test_it_is_formatted() -> None:
    go = go_toolchain.toolchain()
    gofmt = go_toolchain.call([str(go.root / "bin" / "gofmt"), "-l", "."], cwd=MODULE)
    assert gofmt.text == ""


@pytest.mark.parametrize("command", ["vet", "test"])
def test_it_passes(command: str) -> None:
    go_toolchain.toolchain().run(command, "-tags", "nomsgpack", "./...", cwd=MODULE)


def test_the_committed_go_code_is_what_the_plugins_write() -> None:
    made = protoc.go_code("stock/v1/stock.proto", include=MODULE / "proto", module="stackbook.dev/shop", grpc=True)
    assert not made.error and len(made.files) == 2
    for path, text in made.files.items():
        assert (MODULE / path).read_text() == text


def test_a_wrong_setting_ends_a_program_with_one_line(tmp_path: Path) -> None:
    """All that is wrong is named, and nothing is contacted."""
    go_toolchain.toolchain().run(
        "build", "-tags", "nomsgpack", "-o", str(tmp_path / "orders"), "./cmd/orders", cwd=MODULE
    )
    env = {"PATH": os.environ["PATH"], "CACHE_SECONDS": "soon", "DB_NAME": "orders", "DB_USER": "orders"}
    done = subprocess.run([str(tmp_path / "orders")], env=env, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    for words in ("CACHE_SECONDS is", "DB_PASSWORD is not set", "REDIS_PASSWORD is not set"):
        assert words in done.stdout
