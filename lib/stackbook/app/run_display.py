"""What a run shows: on a terminal, one line that changes; elsewhere, at most one line every 30 s during a wait."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TextIO

from stackbook.artifacts.forecast import duration

EVERY = 30.0
"""Seconds between two lines about one step if there is no terminal."""


class Display(Protocol):
    """Shows lines that stay, and the current progress."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def progress(self, event: Mapping[str, Any]) -> None:
        """Show a step's progress."""

    def settled(self) -> None:
        """The step has ended: remove its progress."""


class Lines:
    """Lines for a log: the first message of a wait at once, the next after `every` seconds."""

    def __init__(
        self, say: Callable[[str], None], *, every: float = EVERY, left: Callable[[], float | None] = lambda: None
    ) -> None:
        self._say, self._every, self._left = say, every, left
        self._last: dict[str, float] = {}

    def say(self, text: str) -> None:
        """See `Display.say`."""
        self._say(text)

    def progress(self, event: Mapping[str, Any]) -> None:
        """See `Display.progress`."""
        step, now = f"{event.get('chapter')} {event.get('step')}", time.monotonic()
        if now - self._last.get(step, -self._every) >= self._every:
            self._last[step] = now
            self._say(f"    {event['text']}{remaining(self._left())}")

    def settled(self) -> None:
        """See `Display.settled`."""


class Moving:
    """A terminal: lines stay above one line that changes."""

    def __init__(self, stream: TextIO, *, left: Callable[[], float | None] = lambda: None) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._status = self._console.status("", spinner="line")
        self._left = left

    def say(self, text: str) -> None:
        """See `Display.say`."""
        self._console.print(text, soft_wrap=True)

    def progress(self, event: Mapping[str, Any]) -> None:
        """See `Display.progress`."""
        text = f"{event.get('chapter')}: {event['text']}{remaining(self._left())}"
        self._status.update(text[: max(self._console.width - 4, 20)])
        self._status.start()

    def settled(self) -> None:
        """See `Display.settled`."""
        self._status.stop()


def remaining(seconds: float | None) -> str:
    """The remaining time of the whole run, as the end of a line; empty if unknown."""
    return "" if seconds is None else f" · {duration(seconds)} left in this run"


@contextlib.contextmanager
def display(
    say: Callable[[str], None] | None, *, left: Callable[[], float | None], stream: TextIO | None = None
) -> Iterator[Display]:  # fmt: skip
    """The display for a run.

    Args:
        say: takes the lines; if None, they go to standard output, with a changing line on a terminal.
        left: how many seconds of the whole run are probably left; None if unknown.
        stream: the stream to use instead of standard output.
    """
    out = stream or sys.stdout
    if say is None and out.isatty():
        moving = Moving(out, left=left)
        try:
            yield moving
        finally:
            moving.settled()
        return
    yield Lines(say or (lambda text: print(text, file=out, flush=True)), left=left)
