"""Stackbook's three folders as a whole: given back at the end of a command under sudo, and named when they cannot be used."""

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
    """What a command under sudo wrote belongs to the user who asked for it."""
    owner = ownership.user()
    if owner is None:
        return
    cache = paths.cache().resolve()
    made = [cache / name for name in (*cache_folder.LAYOUT, cache_folder.MARKER)] if cache_folder.marked(cache) else []
    ownership.give([*paths.written(), *made], owner)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_NOTHING = 1 << 20
"""Bytes: with less room than this, a folder is full for whoever writes a record there."""


def unusable(error: OSError) -> StackbookError | None:
    """What to say of an error about one of the folders; None for any other error."""
    if error.errno in _FULL:
        where = error.filename if isinstance(error.filename, str) else _full()
        return StackbookError(f"{os.strerror(error.errno)}: {where}", fix="make room there; the next run goes on")
    if not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    for variable, folder in (("CACHE", paths.cache()), ("STATE", paths.states()), ("RUNS", paths.runs())):
        if path in (folder, *folder.parents) or folder in path.parents:
            fix = f"let this user read and write it, or set STACKBOOK_{variable} to another folder"
            return InputError(f"{path} cannot be used: {os.strerror(error.errno or 0)}", fix=fix)
    return None


def _full() -> str:
    """The folders that stackbook writes to and that have no room; a system call names no file."""
    found = []
    for folder in (paths.cache(), paths.states(), paths.runs(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            there = next(path for path in (folder, *folder.parents) if path.exists())
            if shutil.disk_usage(there).free < _NEARLY_NOTHING:
                found.append(str(folder))
    return ", ".join(dict.fromkeys(found)) or "a disk of this host"
