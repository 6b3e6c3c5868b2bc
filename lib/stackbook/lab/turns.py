"""Turns: what a lab has only once (bookinfo, its traffic rules, what its mesh traces) is used by one at a time.

Two notebooks that are open side by side, or two lanes of a batch, so wait for each other's steps instead of counting each
other's requests. A second lock, for who is next, makes it fair: whoever gives a turn back and wants another queues up behind
those who wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stackbook.core.locks import Lock, Note, ancestors, words

TIMEOUT = 600.0
"""Seconds that a turn is waited for: the longest steps take one minute, and a few may wait."""
BOOKINFO = "bookinfo"
_mine = threading.local()  # the turns that this thread has, by the lock's path, with how often


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

    Within a turn of this thread, or of a process that has started this one, there is nothing to wait for.

    Args:
        folder: the lab's state.
        who: what the turn is for, told to those who wait.
        of: what is used: bookinfo with its rules and traces, or a word for something else that a lab has only once.
        timeout: deadline in seconds.
        say: is told what is waited for, where anything is.

    Raises:
        WaitTimeout: others had it all the time; with the process that has it, what for, and since when.
    """
    main = Lock((folder / f"turn{'' if of == BOOKINFO else f'-{of}'}.lock").resolve())
    depths: dict[Path, int] = _mine.__dict__.setdefault("depths", {})
    if depths.get(main.path) or _of_a_parent(main):
        depths[main.path] = depths.get(main.path, 0) + 1
        try:
            yield 0.0
        finally:
            depths[main.path] -= 1
        return
    said = ""

    def waiting(_seconds: float, _holder: Note) -> None:
        nonlocal said
        if say and said != (said := words(main.holder() or {})):
            say(f"waits for its turn: {said}")

    began = time.monotonic()
    queue = Lock(main.path.with_suffix(".next"))
    with contextlib.ExitStack() as stack:
        with queue.held(
            what=f"{of} to be free", timeout=timeout, waiting=waiting, who=who, since=time.strftime("%H:%M:%S")
        ):
            held = stack.enter_context(main.held(what=f"{of} to be free", timeout=timeout, waiting=waiting))
        held.note(who=who, since=time.strftime("%H:%M:%S"))
        depths[main.path] = 1
        try:
            yield time.monotonic() - began
        finally:
            depths[main.path] = 0


def _of_a_parent(lock: Lock) -> bool:
    """Whether a process that has started this one has the turn. Another thread of this process is nobody's parent."""
    holder = lock.holder()
    return holder is not None and holder["pid"] in ancestors() - {os.getpid()}
