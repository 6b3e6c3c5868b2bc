"""Turns: only one process at a time uses what a lab has only once (bookinfo, its traffic rules, what its mesh traces).

Without turns, two open notebooks, or two lanes of a batch, would count each other's requests. A second lock for the next in
line makes turns fair: a process that returns its turn and wants another one waits behind the others.
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
"""Seconds to wait for a turn: the longest steps take one minute, and several processes may wait."""
BOOKINFO = "bookinfo"
_mine = threading.local()  # how many turns this thread has, by the path of the lock


@contextlib.contextmanager
def turn(
    folder: Path,
    who: str,
    *,
    of: str = BOOKINFO,
    timeout: float = TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> Iterator[float]:
    """Hold a turn of a lab while the block runs; yields how many seconds this process waited for it.

    If this thread or an ancestor of this process already holds the turn, there is no wait.

    Args:
        folder: the lab's state.
        who: what the turn is for; shown to processes that wait.
        of: what the turn is for the use of: bookinfo with its rules and traces, or another thing that a lab has only once.
        timeout: deadline in seconds.
        say: takes a line about the holder while this process waits.

    Raises:
        WaitTimeout: the turn did not become free; the message names the process that holds it, its purpose, and since when.
    """
    main = _main(folder, of)
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


def taken(folder: Path, *, of: str = BOOKINFO) -> bool:
    """Whether a process has a turn of the lab at this moment; see `turn`."""
    return _main(folder, of).holder() is not None


def _main(folder: Path, of: str) -> Lock:
    return Lock((folder / f"turn{'' if of == BOOKINFO else f'-{of}'}.lock").resolve())


def _of_a_parent(lock: Lock) -> bool:
    """Whether an ancestor of this process holds the turn; another thread of this process does not count."""
    holder = lock.holder()
    return holder is not None and holder["pid"] in ancestors() - {os.getpid()}
