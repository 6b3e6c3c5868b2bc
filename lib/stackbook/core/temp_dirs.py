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

from stackbook.core.locks import born


@contextlib.contextmanager
def folder(name: str, base: Path | None = None) -> Iterator[Path]:
    """A temporary folder while the block runs; only its owner may read it.

    Args:
        name: what it is for, in letters.
        base: the folder that it is made in; the user's one for temporary files when None.
    """
    sweep(name, base)
    prefix = f"stackbook-{name}-{os.getpid()}-{born(os.getpid())}-"
    # What cannot be removed is left to the next one's sweep.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as made:
        yield Path(made)


@functools.cache
def of_this_process(name: str, base: Path | None = None) -> Path:
    """A temporary folder until this process ends, the same at each call; only its owner may read it.

    Args:
        name: what it is for, in letters.
        base: as `folder`.
    """
    scope = contextlib.ExitStack()
    made = scope.enter_context(folder(name, base))
    atexit.register(scope.close)
    return made


def sweep(name: str, base: Path | None = None) -> list[str]:
    """Remove the folders of that name whose process has ended; returns their names.

    A name has the number of its process and when that was started: the kernel gives the numbers to others.
    """
    gone = []
    for path in (base or Path(tempfile.gettempdir())).glob(f"stackbook-{name}-*-*"):
        owner = re.fullmatch(rf"stackbook-{name}-(\d+)-(\d+)-\w+", path.name)
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            if owner and born(int(owner[1])) != owner[2] and path.lstat().st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path.name)
    return gone
