"""stackbook's three folders: handing them to the user after a command under sudo, and errors if they cannot be used."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from stackbook.artifacts import cache_folder
from stackbook.core import ownership, paths
from stackbook.core.errors import InputError, StackbookError


def give_back() -> None:
    """Give the files that a command under sudo wrote to the user who called it."""
    owner = ownership.user()
    if owner is None:
        return
    cache = paths.cache().resolve()
    made = [cache / name for name in (*cache_folder.LAYOUT, cache_folder.MARKER)] if cache_folder.marked(cache) else []
    ownership.give([*paths.written(), *made], owner)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NOTHING = 1 << 20
"""Bytes; with less free space than this, a folder counts as full."""


def unusable(error: OSError) -> StackbookError | None:
    """The error to show if an OSError concerns one of the folders; None for other errors."""
    if error.errno in _FULL:
        where = error.filename if isinstance(error.filename, str) else _full()
        return StackbookError(f"{os.strerror(error.errno)}: {where}", fix="free space there; the next run continues")
    if not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    for variable, folder in (("CACHE", paths.cache()), ("STATE", paths.states()), ("RUNS", paths.runs())):
        if path in (folder, *folder.parents) or folder in path.parents:
            fix = f"allow this user to read and write it, or set STACKBOOK_{variable} to another folder"
            return InputError(f"{path} cannot be used: {os.strerror(error.errno or 0)}", fix=fix)
    return None


def _full() -> str:
    """The folders to which stackbook writes and that are full; the system call's error names no file."""
    found = []
    for folder in (paths.cache(), paths.states(), paths.runs(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            there = next(path for path in (folder, *folder.parents) if path.exists())
            if shutil.disk_usage(there).free < _NEARLY_NOTHING:
                found.append(str(folder))
    return ", ".join(dict.fromkeys(found)) or "a disk of this host"
