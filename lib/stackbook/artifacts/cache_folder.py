"""The cache's folder: a marker identifies it as stackbook's, and only stackbook's files are ever removed from it.

The marker is a CACHEDIR.TAG (https://bford.info/cachedir/), which backup programs know, with an additional line of stackbook's.
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
_OF_THE_DISK = "lost+found"  # if the cache is on its own disk
_OWN_LINE = "# This file is a cache directory tag created by stackbook (stackbook-cache-1)."
_OWN_LINES = {_OWN_LINE, "# This folder is the cache of stackbook."}  # an older version wrote the second one
_TEXT = f"""\
Signature: 8a477f597d28d172789f06886806bc55
{_OWN_LINE}
# Its content can be fetched and built again: `stackbook reset --cache` removes it. See https://bford.info/cachedir/
"""


def marked(root: Path) -> bool:
    """Whether the folder has stackbook's marker; a link does not count."""
    marker = root / MARKER
    if marker.is_symlink() or not marker.is_file():
        return False
    return not _OWN_LINES.isdisjoint(marker.read_text(encoding="utf-8", errors="replace").splitlines())


def demand(root: Path) -> None:
    """Refuse a folder as the cache if it is not stackbook's; changes nothing.

    A folder is stackbook's if it is empty, has the marker, or contains only stackbook's own layout (older versions wrote no
    marker).

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
            fix="set STACKBOOK_CACHE to an empty folder, or to one that does not exist",
        )


def claim(root: Path) -> None:
    """Create the folder if necessary, and mark it as stackbook's.

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
    """The name of a lock in the cache that a process holds now; empty if there is none."""
    return next((path.stem for path in sorted((root / "locks").glob("*.lock")) if held(path)), "")


def held(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    with Lock(path).attempt() as lock:
        return lock is None


def remove(root: Path) -> list[str]:
    """Remove stackbook's files from the cache, then the folder if it is empty; returns the names of everything that is left.

    Raises:
        InputError: the folder is not a cache of stackbook.
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
        with contextlib.suppress(OSError):  # a link to a folder, or a mount point
            root.rmdir()
    return left


def remove_folder(folder: Path) -> bool:
    """Remove a folder, unless something is mounted below it, because that may be this host's /proc, /sys or /dev."""
    inside = f"{folder.resolve()}/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if any(f"{mount}/".startswith(inside) for mount in mounts):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _writable(folder: Path) -> None:
    """Make folders writable: Go keeps its modules in read-only folders, from which nothing can be removed."""
    for path, _, _ in os.walk(folder):
        if not os.access(path, os.W_OK):
            with contextlib.suppress(OSError):
                Path(path).chmod(0o700)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
