"""Stackbook's three folders as a whole: given back at the end of a command under sudo, and named when they cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from stackbook.artifacts import cache_folder
from stackbook.core import ownership, paths
from stackbook.core.errors import InputError


def give_back() -> None:
    """What a command under sudo wrote belongs to the user who asked for it."""
    owner = ownership.user()
    if owner is None:
        return
    cache = paths.cache().resolve()
    made = [cache / name for name in (*cache_folder.LAYOUT, cache_folder.MARKER)] if cache_folder.marked(cache) else []
    ownership.give([*paths.written(), *made], owner)


def unusable(error: OSError) -> InputError | None:
    """What to say of an error about one of the folders; None for any other error."""
    if not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    for variable, folder in (("CACHE", paths.cache()), ("STATE", paths.states()), ("RUNS", paths.runs())):
        if path in (folder, *folder.parents) or folder in path.parents:
            fix = f"let this user read and write it, or set STACKBOOK_{variable} to another folder"
            return InputError(f"{path} cannot be used: {os.strerror(error.errno or 0)}", fix=fix)
    return None
