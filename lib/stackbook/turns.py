"""Turns: what a lab has only once (bookinfo, its traffic rules, what its mesh traces) is used by one process at a time.

Two notebooks that are open side by side, or two lanes of a batch, so wait for each other's steps instead of counting each
other's requests. A turn is a `flock` (https://man7.org/linux/man-pages/man2/flock.2.html): it ends with its process, however
that ends. A second lock, for who is next, makes it fair: whoever gives a turn back and wants another queues up behind those who wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stackbook.waiting import until

TIMEOUT = 600.0
"""Seconds that a turn is waited for: the longest steps take one minute, and a few may wait."""
BOOKINFO = "bookinfo"
_depth: dict[Path, int] = {}


@contextlib.contextmanager
def turn(
    folder: Path,
    who: str,
    *,
    of: str = BOOKINFO,
    timeout: float = TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> Iterator[float]:
    """Have the turn of a lab while the block runs; gives the seconds that were waited for it.

    Within a turn of this process, or of one that has started this one, there is nothing to wait for.

    Args:
        folder: the lab's state.
        who: what the turn is for, told to those who wait.
        of: what is used: bookinfo with its rules and traces, or a word for something else that a lab has only once.
        timeout: deadline in seconds.
        say: is told what is waited for, where anything is.

    Raises:
        WaitTimeout: others had it all the time; with the process that has it, what for, and since when.
    """
    main = (folder / f"turn{'' if of == BOOKINFO else f'-{of}'}.lock").resolve()
    if _depth.get(main) or _holder(main).get("process") in _ancestors():
        _depth[main] = _depth.get(main, 0) + 1
        try:
            yield 0.0
        finally:
            _depth[main] -= 1
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        with _locked(main.with_suffix(".next"), main, of, timeout, say):
            file = stack.enter_context(_locked(main, main, of, timeout, say))
        note = {"process": os.getpid(), "who": who, "since": time.strftime("%H:%M:%S")}
        os.ftruncate(file, 0)  # what a process that was killed has left
        os.write(file, json.dumps(note).encode())
        _depth[main] = 1
        try:
            yield time.monotonic() - began
        finally:
            _depth[main] = 0
            os.ftruncate(file, 0)


@contextlib.contextmanager
def _locked(path: Path, main: Path, of: str, timeout: float, say: Callable[[str], None] | None) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    said = ""

    def taken() -> bool:
        nonlocal said
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say and said != (said := _words(main)):
                say(f"waits for its turn: {said}")
            return False
        return True

    try:
        until(taken, what=f"{of} is free", timeout=timeout, every=0.05, last=lambda: _words(main))
        yield file
    finally:
        os.close(file)


def _words(main: Path) -> str:
    """Who has the turn, in words."""
    holder = _holder(main)
    return (
        "process {process} has it since {since}: {who}".format(**holder) if holder else "a process that has just begun"
    )


def _holder(main: Path) -> dict[str, Any]:
    """What the process that has the turn says of itself; empty where nobody has it, or has not said it yet."""
    try:
        note = json.loads(main.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _ancestors() -> set[int]:
    """The processes that have started this one, and itself."""
    found, process = set(), os.getpid()
    while process > 0:
        found.add(process)
        try:
            stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        process = int(stat.rpartition(")")[2].split()[1])
    return found
