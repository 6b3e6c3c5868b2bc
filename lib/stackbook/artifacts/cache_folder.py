"""The cache's folder: marked as stackbook's own, and only what is stackbook's is ever removed of it.

The marker is a CACHEDIR.TAG (https://bford.info/cachedir/), by which backup programs know a cache, with a line of stackbook's own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from stackbook.core import ownership
from stackbook.core.errors import InputError
from stackbook.core.locks import Lock

MARKER = "CACHEDIR.TAG"
LAYOUT = ("blobs", "trees", "files", "index", "history", "partial", "locks", "logs", "tmp", "build")
_OF_THE_DISK = "lost+found"  # where the cache has a disk of its own
_OWN_LINE = "# This file is a cache directory tag created by stackbook (stackbook-cache-1)."
_OWN_LINES = {_OWN_LINE, "# This folder is the cache of stackbook."}  # the second was written for a short time
_TEXT = f"""\
Signature: 8a477f597d28d172789f06886806bc55
{_OWN_LINE}
# Its content can be fetched and built again: `stackbook reset --cache` removes it. See https://bford.info/cachedir/
"""


def marked(root: Path) -> bool:
    """Whether the folder has stackbook's marker: a file, not a link to one."""
    marker = root / MARKER
    if marker.is_symlink() or not marker.is_file():
        return False
    return not _OWN_LINES.isdisjoint(marker.read_text(encoding="utf-8", errors="replace").splitlines())


def demand(root: Path) -> None:
    """Refuse a folder as the cache if it is not stackbook's; changes nothing.

    Empty, marked, or with stackbook's own layout and nothing else (from before there was a marker) are ours.

    Raises:
        InputError: the folder contains other files, or is not a folder.
    """
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", fix="set STACKBOOK_CACHE to an empty or a new folder")
    if marked(root):
        return
    foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in (*LAYOUT, _OF_THE_DISK))
    if foreign:
        raise InputError(
            f"{root} is not a cache of stackbook: it has {_some(foreign)} in it",
            fix="set STACKBOOK_CACHE to an empty folder, or to none that is there",
        )


def claim(root: Path) -> None:
    """Make the folder if need be, and mark it as stackbook's.

    Raises:
        InputError: see `demand`.
    """
    demand(root)
    ownership.make(root)
    if not marked(root):
        temporary = root / "tmp" / f"{MARKER}-{os.getpid()}"
        temporary.parent.mkdir(exist_ok=True)
        temporary.write_text(_TEXT, encoding="utf-8")
        temporary.replace(root / MARKER)


def busy(root: Path) -> str:
    """What works in the cache just now, by the name of its lock; empty when nothing does."""
    return next((path.stem for path in sorted((root / "locks").glob("*.lock")) if held(path)), "")


def held(path: Path) -> bool:
    """Whether somebody has the lock of this file."""
    with Lock(path).attempt() as lock:
        return lock is None


def remove(root: Path) -> list[str]:
    """Remove what is stackbook's of the cache, then the folder if nothing else is in it; returns the names of what was left.

    Raises:
        InputError: the folder is not a cache of stackbook's.
    """
    if not root.exists():
        return []
    demand(root)
    for name in (*LAYOUT, MARKER):
        entry = root / name
        if entry.is_symlink() or entry.is_file():
            entry.unlink()
        elif entry.is_dir():
            _writable(entry)
            remove_folder(entry)
    left = sorted(entry.name for entry in root.iterdir())
    if not left:
        with contextlib.suppress(OSError):  # a link to a folder, or where something is mounted
            root.rmdir()
    return left


def remove_folder(folder: Path) -> bool:
    """Remove a folder, unless something is mounted below it: that might be this host's own /proc, /sys or /dev."""
    inside = f"{folder.resolve()}/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if any(f"{mount}/".startswith(inside) for mount in mounts):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _writable(folder: Path) -> None:
    """Go keeps its modules in folders that nobody may write to, so that nothing in them can be removed."""
    for path, _, _ in os.walk(folder):
        if not os.access(path, os.W_OK):
            with contextlib.suppress(OSError):
                Path(path).chmod(0o700)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
