"""A line below a running cell in JupyterLab that says what a long step is doing.

The line is a separate display, updated every second and cleared when the step ends. So it does not mix with the cell's
output, and the page is the same as after a batch run. A batch run shows no such line; the terminal follows the record.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

_AFTER = 1.5  # seconds; a shorter step needs no such line
_WIDTH = 110
Show = Callable[[str], None]


class Ticker:
    """The line of one step; `text` says what the step is doing, and `show` replaces the line on the page."""

    def __init__(self, title: str, show: Show, *, every: float = 1.0, after: float = _AFTER) -> None:
        self.text = ""
        self._title, self._show, self._every, self._after = title, show, every, after
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._shown = False

    def run(self) -> None:
        """Update the line repeatedly until `end`."""
        start = time.monotonic()
        if self._ended.wait(self._after):
            return
        while not self._ended.is_set():
            self._write(f"… {self._title}: {time.monotonic() - start:.0f} s" + (f" ({self.text})" if self.text else ""))
            self._ended.wait(self._every)

    def end(self) -> None:
        """Clear the line for good."""
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
    """Whether this kernel belongs to JupyterLab, and not to a batch run or a test."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and not os.environ.get("STACKBOOK_RUN")


@contextlib.contextmanager
def ticking(title: str, *, show: Show | None = None, every: float = 1.0, after: float = _AFTER) -> Iterator[Ticker]:
    """Show a line while the block runs, if this kernel is interactive; `text` can be set in any case."""
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
    """A function that updates its own display on the page; it does nothing outside a kernel."""
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
