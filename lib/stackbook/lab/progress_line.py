"""A line below a running cell that says what a long step is doing, for somebody who looks at it in JupyterLab.

It is a separate display that is rewritten each second, and empty when the step ends: what a cell prints never stands
behind it, and what stays on the page is the same as in a batch run, where nothing is shown (the terminal follows the
record instead).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

_AFTER = 1.5  # seconds: a short step needs no such line
_WIDTH = 110
Show = Callable[[str], None]


class Ticker:
    """The line of one step; `text` is what it is doing, `show` puts a line in place of the one before."""

    def __init__(self, title: str, show: Show, *, every: float = 1.0, after: float = _AFTER) -> None:
        self.text = ""
        self._title, self._show, self._every, self._after = title, show, every, after
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._shown = False

    def run(self) -> None:
        """Write the line again and again until `end`."""
        start = time.monotonic()
        if self._ended.wait(self._after):
            return
        while not self._ended.is_set():
            self._write(f"… {self._title}: {time.monotonic() - start:.0f} s" + (f" ({self.text})" if self.text else ""))
            self._ended.wait(self._every)

    def end(self) -> None:
        """Take the line away; it does not come back."""
        self._ended.set()
        with self._writing:
            if self._shown:
                self._show("")
            self._shown = False

    def _write(self, line: str) -> None:
        with self._writing:
            if self._ended.is_set():
                return
            self._show(line[:_WIDTH])
            self._shown = True


def interactive() -> bool:
    """Whether somebody looks at the page: a kernel of JupyterLab, not one of a batch run or of a test."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and not os.environ.get("STACKBOOK_RUN")


@contextlib.contextmanager
def ticking(title: str, *, show: Show | None = None, every: float = 1.0, after: float = _AFTER) -> Iterator[Ticker]:
    """Show a line while the block runs, if somebody looks; its `text` may be set all the same."""
    ticker = Ticker(title, show or _display(), every=every, after=after)
    if not interactive():
        yield ticker
        return
    thread = threading.Thread(target=ticker.run, daemon=True, name="ticker")
    thread.start()
    try:
        yield ticker
    finally:
        ticker.end()
        thread.join(5)


def _display() -> Show:
    """A display of its own on the page; nothing where no kernel runs."""
    place = f"stackbook-{uuid.uuid4().hex}"
    there = False

    def show(line: str) -> None:
        nonlocal there
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is not None:
            display({"text/plain": line}, raw=True, display_id=place, update=there)  # type: ignore[no-untyped-call]
            there = True

    return show
