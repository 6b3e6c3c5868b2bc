"""A line below a running cell that says what a long step is doing, for somebody who looks at it in JupyterLab.

It is written over itself by carriage returns, which JupyterLab shows in place, and is gone when the step ends: what stays
on the page is the same as in a batch run, where nothing is shown (the terminal follows the record instead).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

_AFTER = 1.5  # seconds: a short step needs no such line
_WIDTH = 110


class Ticker:
    """The line of one step; `text` is what it is doing."""

    def __init__(self, title: str, stream: TextIO, *, every: float = 1.0, after: float = _AFTER) -> None:
        self.text = ""
        self._title, self._stream, self._every, self._after = title, stream, every, after
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._shown = 0

    def run(self) -> None:
        """Write the line again and again until `end`."""
        start = time.monotonic()
        if self._ended.wait(self._after):
            return
        while not self._ended.is_set():
            self._write(f"… {self._title}: {time.monotonic() - start:.0f} s" + (f" ({self.text})" if self.text else ""))
            self._ended.wait(self._every)

    def end(self) -> None:
        """Take the line away."""
        self._ended.set()

    def clear(self) -> None:
        """Write over what was shown."""
        with self._writing:
            if self._shown:
                self._stream.write("\r" + " " * self._shown + "\r")
                self._stream.flush()
            self._shown = 0

    def before_display(self, message: Any) -> Any:
        """A picture or a table comes: the line ends here, as behind it JupyterLab could not write over it any more."""
        self.end()
        self.clear()
        return message

    def _write(self, line: str) -> None:
        line = line[:_WIDTH]
        with self._writing:
            if self._ended.is_set():
                return
            self._stream.write("\r" + line.ljust(self._shown))
            self._stream.flush()
            self._shown = max(self._shown, len(line))


def interactive() -> bool:
    """Whether somebody looks at the page: a kernel of JupyterLab, not one of a batch run or of a test."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and not os.environ.get("STACKBOOK_RUN")


@contextlib.contextmanager
def ticking(title: str, *, stream: TextIO | None = None, every: float = 1.0, after: float = _AFTER) -> Iterator[Ticker]:
    """Show a line while the block runs, if somebody looks; its `text` may be set all the same."""
    ticker = Ticker(title, stream or sys.stdout, every=every, after=after)
    if not interactive():
        yield ticker
        return
    publisher = _publisher()
    if publisher:
        publisher.register_hook(ticker.before_display)
    thread = threading.Thread(target=ticker.run, daemon=True, name="ticker")
    thread.start()
    try:
        yield ticker
    finally:
        if publisher:
            publisher.unregister_hook(ticker.before_display)
        ticker.end()
        thread.join(5)
        ticker.clear()


def _publisher() -> Any:
    """What a kernel sends pictures and tables with, if it can be told of them before."""
    from IPython import get_ipython

    found = getattr(get_ipython(), "display_pub", None)
    return found if hasattr(found, "register_hook") else None
