"""Progress of long downloads and builds, and how it gets to a terminal or a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class Progress:
    """One moment of one job.

    Attributes:
        job: what is being fetched or built, e.g. `go:kubernetes` or `machine-rootfs`.
        phase: `download`, `build`, `assemble`, `verify`, `wait`, `done` or `note`.
        done: the amount done, in `unit`.
        total: the whole amount, in `unit`; 0 when unknown.
        unit: `bytes`, `packages`, `files` or `seconds`.
        seconds: since the job began.
        remaining: estimated seconds still to go; None when unknown.
        message: a few words for the reader.
    """

    job: str
    phase: str
    done: float = 0
    total: float = 0
    unit: str = "seconds"
    seconds: float = 0.0
    remaining: float | None = None
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As data, for the record that other processes read."""
        return asdict(self)

    def __str__(self) -> str:
        return self.line()

    def line(self) -> str:
        """The progress in one line.

        >>> Progress("istioctl", "download", done=5e6, total=1e7, unit="bytes", seconds=2, remaining=2).line()
        'istioctl: downloading, 5 of 10 MB, 2 s, about 2 s more'
        >>> Progress("go:apps", "wait", seconds=9, message="go:istio: building, 3 of 9 packages").line()
        'waiting 9 s for apps (Go build): go:istio: building, 3 of 9 packages'
        """
        if self.phase in ("note", "done"):
            return f"{title(self.job)}: {self.message}"
        if self.phase == "wait":
            return f"waiting {self.seconds:.0f} s for {title(self.job)}" + (f": {self.message}" if self.message else "")
        parts = [f"{title(self.job)}: {_PHASES.get(self.phase, self.phase)}"]
        if self.unit == "bytes" and self.done:
            whole = f" of {self.total / 1e6:.0f}" if self.total else ""
            parts.append(f"{self.done / 1e6:.0f}{whole} MB")
        elif self.unit in ("packages", "files") and self.done:
            parts.append(f"{self.done:.0f}" + (f" of {self.total:.0f}" if self.total else "") + f" {self.unit}")
        if self.seconds >= 1:
            parts.append(f"{self.seconds:.0f} s")
        if self.remaining is not None:
            parts.append(f"about {self.remaining:.0f} s more")
        return ", ".join(parts) + (f" ({self.message})" if self.message and self.phase != "build" else "")


_PHASES = {"download": "downloading", "build": "building", "assemble": "packing", "verify": "checking"}


def title(job: str) -> str:
    """A job's name for people.

    >>> title("go:kubernetes"), title("bundle:istio"), title("envoy")
    ('kubernetes (Go build)', 'images of istio', 'envoy')
    """
    kind, _, name = job.partition(":")
    return (
        {"go": f"{name} (Go build)", "bundle": f"images of {name}", "image": f"image {name}"}.get(kind, job)
        if name
        else job
    )


Report = Callable[[Progress], None]


def quiet(_: Progress) -> None:
    """A report that prints nothing."""


class ConsoleReport:
    """Shows progress: one changing line on a terminal; elsewhere a line at most every `every` seconds per job."""

    def __init__(self, stream: TextIO | None = None, *, every: float = 15.0) -> None:
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._every = every
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        """Show progress, unless the last line was shown a moment ago."""
        lasting = progress.phase in ("note", "done")
        now = time.monotonic()
        with self._lock:
            wait = 0.2 if self._tty else self._every
            if not lasting and now - self._shown.get(progress.job, -1e9) < wait:
                return
            self._shown[progress.job] = now
            mark = "✓ " if progress.phase == "done" else "• "
            if self._tty:
                self._stream.write("\r\x1b[K" + mark + progress.line()[:160] + ("\n" if lasting else ""))
            else:
                self._stream.write(mark + progress.line() + "\n")
            self._stream.flush()
