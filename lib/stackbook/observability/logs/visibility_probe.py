"""Counting the numbered lines that a search finds while Elasticsearch stops and starts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackbook.core.errors import StackbookError
from stackbook.core.waiting import beside
from stackbook.observability.logs.client import opened
from stackbook.observability.logs.loss_accounting import lines_of

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.observability.logs.generators import Writers


@contextlib.contextmanager
def watched(kube: Kube, writers: Writers, *, every: float = 1.0) -> Iterator[list[tuple[float, int]]]:
    """While the block runs, collect (Unix time, lines that a search finds); nothing is added while Elasticsearch does not answer."""
    seen: list[tuple[float, int]] = []

    def follow(ended: threading.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(StackbookError), opened(kube, timeout=5) as store:
                while not ended.wait(every):
                    seen.append((time.time(), store.count(lines_of(writers))))
            ended.wait(every)

    with beside(follow, name="watch-lines"):
        yield seen
