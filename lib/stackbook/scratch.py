"""Temporary folders that do not stay, not even those of a kernel that was killed: the next one takes them away."""

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


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A temporary folder while the block runs; only its owner may read it.

    Args:
        name: what it is for, in letters.
    """
    sweep(name)
    with tempfile.TemporaryDirectory(prefix=f"stackbook-{name}-{os.getpid()}-") as made:
        yield Path(made)


@functools.cache
def of_this_process(name: str) -> Path:
    """A temporary folder until this process ends, the same at each call; only its owner may read it.

    Args:
        name: what it is for, in letters.
    """
    scope = contextlib.ExitStack()
    made = scope.enter_context(folder(name))
    atexit.register(scope.close)
    return made


def sweep(name: str) -> list[str]:
    """Remove the folders of that name whose process has ended; returns their names."""
    gone = []
    for path in Path(tempfile.gettempdir()).glob(f"stackbook-{name}-*-*"):
        owner = re.fullmatch(rf"stackbook-{name}-(\d+)-\w+", path.name)
        if owner and not Path(f"/proc/{owner[1]}").exists() and path.stat().st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone
