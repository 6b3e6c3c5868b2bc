"""The program that follows the logs of a learner's pods: its form, its vet, its own tests, and what it refuses."""

import subprocess
from pathlib import Path

import pytest
from gotools import MARKS
from stackbook.artifacts import go_toolchain
from stackbook.core import paths

pytestmark = MARKS
MODULE = paths.checkout() / "lib" / "follow"


def test_it_is_formatted() -> None:
    go = go_toolchain.toolchain()
    assert go_toolchain.call([str(go.root / "bin" / "gofmt"), "-l", "."], cwd=MODULE).text == ""


@pytest.mark.parametrize("command", ["vet", "test"])
def test_it_passes(command: str) -> None:
    go_toolchain.toolchain().run(command, "./...", cwd=MODULE)


def test_bad_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    go_toolchain.toolchain().run("build", "-o", str(tmp_path / "follow"), "./cmd/follow", cwd=MODULE)
    for words in ([], ["-limit", "0", "ada"], ["-account", str(tmp_path), "ada"]):
        done = subprocess.run([tmp_path / "follow", *words], capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("follow: ")
