"""The remaining time of a run: the missing components, and the remaining chapters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from stackbook.app.report.records import earlier
from stackbook.app.report.timings import usual
from stackbook.artifacts.forecast import duration, forecast
from stackbook.artifacts.resolver import Resolver
from stackbook.config.chapters import Chapter

_AGAIN = 5.0  # seconds between two looks at the cache
_RUNS = 10


class TimeLeft:
    """Call it to get the seconds that are probably left.

    It assumes the chapters' times from earlier runs on this machine, or else those in the list of chapters. Builds and
    chapters share the processors, so it adds their times.
    """

    def __init__(self, artifacts: Resolver, components: Sequence[str], chosen: Sequence[Chapter], folder: Path) -> None:
        self._artifacts, self._components = artifacts, list(components)
        known = usual(earlier(folder, _RUNS)[0])
        self._chapters = {c.id: median(known[c.id]) if c.id in known else c.seconds for c in chosen}
        self._first = forecast(artifacts, self._components)
        self._missing, self._asked = self._first.seconds, time.monotonic()
        self._since = time.monotonic()

    def announcement(self) -> str:
        """What will be fetched, and how long the run will probably take; for the start of the run."""
        whole = duration(self._first.seconds + sum(self._chapters.values()))
        return f"{len(self._chapters)} chapters, {whole}; {self._first}"

    def passed(self, chapter: Chapter) -> None:
        """Note that a chapter has ended."""
        self._chapters.pop(chapter.id, None)
        self._since = time.monotonic()

    def __call__(self) -> float:
        """The seconds that are probably left."""
        now = time.monotonic()
        if now - self._asked >= _AGAIN:
            self._missing, self._asked = forecast(self._artifacts, self._components).seconds, now
        chapters = list(self._chapters.values())
        going_on = max(chapters[0] - (now - self._since), 0.0) if chapters else 0.0
        return self._missing + going_on + sum(chapters[1:])
