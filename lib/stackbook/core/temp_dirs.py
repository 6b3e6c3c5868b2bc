"""Temporary folders that are always removed: those of a killed kernel by the next one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
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
    return _removed(abandoned(name, base))


def sweep_all(base: Path | None = None) -> list[str]:
    """Remove the folders of any name whose process has ended, but none with a mount inside; returns their names.

    Reset does this: after it, no next process may come.
    """
    mounts = _mount_points()
    return _removed(
        path for path in abandoned("[a-z]+", base) if not any(path in m.parents or path == m for m in mounts)
    )


def abandoned(name: str, base: Path | None = None) -> list[Path]:
    """The folders with this name (a regular expression) whose process has ended.

    A folder name contains the number of its process and its start time, because the kernel reuses numbers.
    """
    found = []
    for path in (base or Path(tempfile.gettempdir())).glob("stackbook-*-*-*"):
        owner = re.fullmatch(rf"stackbook-{name}-(\d+)-(\d+)-\w+", path.name)
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            if owner and born(int(owner[1])) != owner[2] and path.lstat().st_uid == os.geteuid():
                found.append(path)
    return found


def _removed(folders: Iterable[Path]) -> list[str]:
    gone = list(folders)
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in gone]


def _mount_points(listed: str | None = None) -> list[Path]:
    """Where something is mounted (proc(5), mounts: the second field, with octal escapes)."""
    if listed is None:
        listed = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    fields = [line.split()[1] for line in listed.splitlines()]
    return [Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)) for field in fields]
