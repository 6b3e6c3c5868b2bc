"""How many numbered lines can be found, followed while Elasticsearch comes and goes."""

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
    """A growing list of (Unix time, lines that can be found) while the block runs; nothing is added while nobody answers."""
    seen: list[tuple[float, int]] = []

    def follow(ended: threading.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(StackbookError), opened(kube, timeout=5) as store:
                while not ended.wait(every):
                    seen.append((time.time(), store.count(lines_of(writers))))
            ended.wait(every)

    with beside(follow, name="watch-lines"):
        yield seen
