"""Waiting for a condition, always with a deadline, and with a reason when it is not met."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from stackbook.core.errors import StackbookError, WaitTimeout

T = TypeVar("T")


def pause(seconds: float) -> None:
    """Wait for `seconds`; an interrupt ends the wait at once."""
    threading.Event().wait(seconds)


@contextmanager
def beside(work: Callable[[threading.Event], None], *, name: str, timeout: float = 20.0) -> Iterator[None]:
    """Run `work` in its own thread while the block runs; its argument is an event that says when to stop.

    Args:
        work: looks at the event (`event.wait(seconds)` to pause) and returns soon after it is set.
        name: name of the thread.
        timeout: how many seconds to wait for its end.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout)


def until(
    check: Callable[[], T | None],
    *,
    what: str,
    timeout: float,
    every: float = 0.5,
    last: Callable[[], str] | None = None,
    cause: Callable[[], str] | None = None,
    tolerate: tuple[type[BaseException], ...] = (),
) -> T:
    """Call `check` until it returns a true value, and return that value.

    Args:
        check: returns a true value when done; raising anything not in `tolerate` ends the wait at once.
        what: the condition, as it follows "waiting for" in the error ("k8s-node1 to boot").
        timeout: deadline in seconds.
        every: pause between two checks, in seconds.
        last: says what is seen now; asked only when the deadline has passed.
        cause: looks for the likely cause; asked only when the deadline has passed.
        tolerate: exceptions of `check` that mean "not yet".

    Raises:
        WaitTimeout: the deadline passed; it holds what was last seen and the likely cause.

    >>> until(lambda: 42, what="the answer", timeout=1)
    42
    """
    start = time.monotonic()
    seen = ""
    while True:
        try:
            value = check()
            if value:
                return value
            seen = ""
        except tolerate as error:
            seen = str(error).splitlines()[0] if str(error) else type(error).__name__
        waited = time.monotonic() - start
        if waited >= timeout:
            raise WaitTimeout(what, waited, last=_ask(last) or seen, cause=_ask(cause))
        pause(min(every, max(0.01, timeout - waited)))


def _ask(question: Callable[[], str] | None) -> str:
    """The answer, or why it is missing: a broken diagnosis must not hide the timeout."""
    if question is None:
        return ""
    try:
        return question()
    except StackbookError as error:
        return f"(lookup failed: {error.message.splitlines()[0]})"
