"""A lab from one file, on a host that reaches nothing: a network namespace with loopback alone, and an empty cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from labtools import stackbook
from test_hosts import host

pytestmark = [pytest.mark.live, pytest.mark.more]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What chapters 00 to 03 need, in one file."""
    file = tmp_path_factory.mktemp("bundle") / "lab.bundle"
    done = stackbook("bundle", "save", str(file), "--to", "03")
    assert done.status == 0, done.output[-3000:]
    yield file
    file.unlink()


def test_a_lab_comes_up_where_nothing_is_reached(saved: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    try:
        with host(tmp_path, env={"STACKBOOK_CACHE": str(cache)}) as other:
            alone = other.stackbook("fetch", "cni-flannel", timeout=300)
            assert alone.status != 0, "this host reaches something"
            shutil.rmtree(cache)
            loaded = other.stackbook("bundle", "load", str(saved))
            assert loaded.status == 0, loaded.output[-3000:]
            said = other.carries_the_lab("03")
            assert "nothing is fetched" in said, said[:500]
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def test_a_damaged_file_leaves_the_cache_as_it_was(saved: Path, tmp_path: Path) -> None:
    """The last component of a real bundle is damaged: what comes before it is there, that one is not."""
    damaged = tmp_path / "damaged.bundle"
    shutil.copyfile(saved, damaged)
    with damaged.open("r+b") as file:
        file.seek(-(64 << 10), 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    done = stackbook("bundle", "load", str(damaged), env={"STACKBOOK_CACHE": str(tmp_path / "cache")})
    assert done.status == 2, done.output
    assert "damaged" in done.output and "Traceback" not in done.output, done.output
    again = stackbook("bundle", "load", str(saved), env={"STACKBOOK_CACHE": str(tmp_path / "cache")})
    assert again.status == 0, again.output
    shutil.rmtree(tmp_path / "cache")
