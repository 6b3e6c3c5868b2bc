"""How soon a search finds a span, and what is missing after an outage of Jaeger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import pause, until
from stackbook.observability.tracing import telemetry
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.probe import Probe, send
from stackbook.traffic.load_client import Executes
from stackbook.traffic.request_keys import plain_id

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

RATINGS, PAGE = "http://ratings:9080/ratings/0", "http://productpage:9080/productpage"
_SENT = 3.0
"""Seconds after which each proxy has sent its spans, even if it collects them for one second."""
SPANS = {"v1": 6, "v2": 8, "v3": 8}
"""Number of spans of a product page, by the version of reviews: v1 does not call ratings."""


def delays(kube: Executes, jaeger: Jaeger, *, count: int, rate: float, timeout: float = 20.0) -> pd.DataFrame:
    """How long after its end a search finds each request completely, with the caller's span and the callee's.

    It sends requests one by one, `rate` a second, and polls Jaeger meanwhile. Columns: request, seconds (from the end of
    the request, by the clock of the caller's proxy, until a search found both spans).

    Raises:
        CheckFailed: a request failed.
        WaitTimeout: some were not found; the error has the number of those that were.
    """
    from concurrent.futures import ThreadPoolExecutor

    probes = [Probe(RATINGS) for _ in range(count)]
    order = {probe.trace_id: number for number, probe in enumerate(probes)}
    seen: dict[str, float] = {}
    ended: dict[str, float] = {}

    def all_found() -> bool:
        frame = jaeger.traces(id for id in order if id not in seen)
        now = time.time()
        for id, part in frame.groupby("trace_id"):
            if len(part) >= 2:
                client = part[part["kind"] == "client"].iloc[0]
                seen[str(id)], ended[str(id)] = now, float(client["start"] + client["seconds"])
        return len(seen) == count

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, kube, *probes, rate=rate)
        until(all_found, what="each request to be found", timeout=timeout + count / rate, every=0.05,
              last=lambda: f"{len(seen)} of {count}", tolerate=(StackbookError,))  # fmt: skip
        if set(sending.result()) != {200}:
            raise CheckFailed("the answer to a request was not 200")
    rows = sorted((order[id], seen[id] - ended[id]) for id in seen)
    return pd.DataFrame(rows, columns=["request", "seconds"])


def settled(kube: Kube, jaeger: Jaeger, *, traced: bool, timeout: float = 75.0) -> int:
    """Wait until each proxy on the path of a product page uses its new listeners; returns how many requests that took.

    A connection that was open when a listener changed uses the old one until it is closed. So it waits first for these to close
    (`telemetry.drained`), and then for a correct round of requests.

    Args:
        kube: the cluster from which requests are sent.
        jaeger: an open handle.
        traced: whether the new listeners trace. If they do not, proxies have to send spans at once (`telemetry.PROMPT`):
                otherwise a proxy that still traces could go unnoticed.
        timeout: deadline of each wait, in seconds.

    Raises:
        WaitTimeout: the error has the number of spans of the last requests, or the proxies that still have old connections.
    """
    sent, spans = 0, 0
    telemetry.drained(kube, timeout=timeout)

    def done() -> bool:
        nonlocal sent, spans
        probes = [Probe(PAGE) for _ in range(12)]
        send(kube, *probes, parallel=4)
        sent += len(probes)
        pause(0.5)
        ids = [probe.trace_id for probe in probes]
        frame, deadline = jaeger.traces(ids), time.monotonic() + _SENT
        while traced and not _whole(frame, len(probes)) and time.monotonic() < deadline:
            pause(0.3)
            frame = jaeger.traces(ids)
        spans = len(frame)
        return _whole(frame, len(probes)) if traced else spans == 0

    until(done, what=f"the proxies to use the new listeners, {'with' if traced else 'without'} a tracer",
          timeout=timeout,
          every=0.1, last=lambda: f"twelve requests left {spans} spans")  # fmt: skip
    return sent


def _whole(frame: pd.DataFrame, count: int) -> bool:
    """Whether there are `count` traces of product pages, each complete for its version of reviews."""
    reviews = frame[(frame["app"] == "reviews") & (frame["kind"] == "server")]
    versions = dict(zip(reviews["trace_id"], reviews["version"], strict=True))
    sizes = {str(trace): len(part) for trace, part in frame.groupby("trace_id")}
    if len(sizes) != count or set(versions) != set(sizes):
        return False
    return all(SPANS.get(versions[trace]) == size for trace, size in sizes.items())


def resumed(kube: Executes, jaeger: Jaeger, *, timeout: float = 45.0) -> float:
    """Send requests repeatedly until one has left all its spans; returns the Unix time at that moment.

    Raises:
        WaitTimeout: no request left all its spans.
    """
    probes: list[Probe] = []

    def arrives() -> bool:
        probes.append(Probe(RATINGS))
        send(kube, probes[-1])
        pause(0.3)
        return bool(jaeger.traces(p.trace_id for p in probes[-5:]).groupby("trace_id").size().ge(2).any())

    until(arrives, what="spans to arrive in Jaeger again", timeout=timeout, every=0.2, tolerate=(StackbookError,))
    return time.time()


@dataclass(frozen=True)
class Gap:
    """What is missing from a batch: requests without a trace, and the Unix times between which they started."""

    requests: int
    missing: int
    since: float
    until: float

    def row(self, began: float) -> dict[str, object]:
        """For a table: times in seconds since `began`."""
        return {
            "requests": self.requests,
            "without a trace": self.missing,
            "from second": round(self.since - began, 1) if self.missing else "",
            "to second": round(self.until - began, 1) if self.missing else "",
        }


def gap(sent: pd.DataFrame, found: pd.DataFrame) -> tuple[Gap, pd.DataFrame]:
    """Which requests of a table of `load_client.send` have no span; returns the table with a column `traced`."""
    known = set(found["request_id"])
    traced = sent["request_id"].map(lambda id: plain_id(id) in known).astype(bool)
    times = sent["started"] + sent.attrs["began"]
    lost = times[~traced]
    since, last = (float(lost.min()), float(lost.max())) if len(lost) else (0.0, 0.0)
    return Gap(len(sent), len(lost), since, last), sent.assign(traced=traced)


def survived(before: Sequence[str], after: pd.DataFrame) -> list[str]:
    """The trace ids that existed before and no longer do."""
    return sorted(set(before) - set(after["trace_id"]))
