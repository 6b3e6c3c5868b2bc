"""Requests while something changes: how many fail, and for how long nothing is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import httpx

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import beside, until

EVERY = 0.05
"""Seconds between the beginnings of two requests."""
_IN_A_ROW = 10


@dataclass(frozen=True)
class Requests:
    """What became of the requests: when each began, in seconds since the first, and whether it was answered with 200."""

    answered: tuple[tuple[float, bool], ...]

    @property
    def failed(self) -> int:
        """How many got no answer, or another one."""
        return sum(not good for _, good in self.answered)

    @property
    def pause(self) -> float:
        """The longest time between two good answers, in seconds; 0 if each request was answered.

        >>> Requests(((0.0, True), (0.1, False), (0.2, False), (0.3, True))).pause
        0.3
        """
        good = [moment for moment, well in self.answered if well]
        return max((after - before for before, after in pairwise(good)), default=0.0) if self.failed else 0.0

    def words(self) -> str:
        """The result in a cell of a table."""
        if not self.failed:
            return f"0 of {len(self.answered)} requests failed"
        return f"{self.failed} of {len(self.answered)} requests failed, none answered for {self.pause:.1f} s"


def requests(url: str, change: Callable[[], object], *, timeout: float = 60.0) -> Requests:
    """Send requests one after the other, each on a connection of its own, until `change` is done and the last 10 were answered.

    Args:
        url: what is asked.
        change: what happens meanwhile; it begins when the first 10 requests were answered.
        timeout: deadline for requests to be answered again, in seconds.

    Raises:
        CheckFailed: a request is refused before the change.
        WaitTimeout: requests are not answered again in time.
    """
    found: list[tuple[float, bool]] = []
    begin = time.monotonic()

    def ask(ended: threading.Event) -> None:
        anew = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=2.0, trust_env=False, limits=anew) as client:
            while not ended.is_set():
                start = time.monotonic()
                try:
                    good = client.get(url).status_code == 200
                except httpx.TransportError:
                    good = False
                found.append((start - begin, good))
                ended.wait(max(0.0, EVERY - (time.monotonic() - start)))

    def steady(since: int) -> bool:
        return len(found) >= since + _IN_A_ROW and all(good for _, good in found[-_IN_A_ROW:])

    with beside(ask, name="requests"):
        until(lambda: len(found) >= _IN_A_ROW, what=f"{_IN_A_ROW} requests", timeout=timeout, every=EVERY)
        if failed := Requests(tuple(found)).failed:
            raise CheckFailed(f"{failed} requests to {url} failed before anything was changed")
        change()
        since = len(found)
        until(lambda: steady(since), what=f"{url} to be answered again", timeout=timeout, every=EVERY)
    return Requests(tuple(found))
