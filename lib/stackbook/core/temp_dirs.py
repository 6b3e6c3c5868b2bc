"""Temporary folders that are always removed: those of a killed kernel by the next one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stackbook.core.locks import born


@contextlib.contextmanager
def folder(name: str, base: Path | None = None) -> Iterator[Path]:
    """A temporary folder that exists while the block runs; only its owner can read it.

    Args:
        name: what it is for, only letters.
        base: the folder to create it in; None for the user's temporary folder.
    """
    sweep(name, base)
    prefix = f"stackbook-{name}-{os.getpid()}-{born(os.getpid())}-"
    # The next process's sweep removes what cannot be removed now.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as made:
        yield Path(made)


@functools.cache
def of_this_process(name: str, base: Path | None = None) -> Path:
    """A temporary folder that exists until this process ends, the same on each call; only its owner can read it.

    Args:
        name: what it is for, only letters.
        base: see `folder`.
    """
    scope = contextlib.ExitStack()
    made = scope.enter_context(folder(name, base))
    atexit.register(scope.close)
    return made


def sweep(name: str, base: Path | None = None) -> list[str]:
    """Remove the folders with this name whose process has ended; returns their names.

    The next process does this. Who needs something of them first asks `abandoned`.
    """
    gone = abandoned(name, base)
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in gone]


def abandoned(name: str, base: Path | None = None) -> list[Path]:
    """The folders with this name whose process has ended.

    A folder name contains the number of its process and its start time, because the kernel reuses numbers.
    """
    found = []
    for path in (base or Path(tempfile.gettempdir())).glob(f"stackbook-{name}-*-*"):
        owner = re.fullmatch(rf"stackbook-{name}-(\d+)-(\d+)-\w+", path.name)
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            if owner and born(int(owner[1])) != owner[2] and path.lstat().st_uid == os.geteuid():
                found.append(path)
    return found
