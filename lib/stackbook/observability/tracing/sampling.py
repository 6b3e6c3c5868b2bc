"""Which share of requests is traced: predicted from their ids, and counted.

Envoy takes the first eight hexadecimal digits of a request's id as a number, and samples the request when its last
four decimal digits are below 10,000 times the share (UUIDRequestIDExtension and mutateTracingRequestHeader in
source/extensions/request_id/uuid/config.cc and source/common/http/conn_manager_utility.cc). So all
proxies on the way make the same decision, and the id alone predicts it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stackbook.analysis import statistics
from stackbook.analysis.statistics import ShareTest
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.mesh.rules import percent
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.probe import decisions, flood, request
from stackbook.traffic.load_client import Executes
from stackbook.traffic.request_keys import plain_id

RATINGS = "http://ratings:9080/ratings/0"


def _caller() -> str:
    """The service whose spans begin the traces, as Jaeger names it."""
    return f"load.{here().workloads}"


def predicted(request_id: str, share: float) -> bool:
    """Whether Envoy samples the request with this id at `share` percent.

    >>> predicted("00000009-0000-4000-8000-000000000000", 0.1), predicted("0000000a-0000-4000-8000-000000000000", 0.1)
    (True, False)
    """
    return int(request_id[:8], 16) % 10_000 < round(100 * percent("share", share))


def needed(share: float, *, alpha: float, power: float) -> int:
    """How many requests distinguish this share from three times and from a tenth of it; 100 % from 95 %.

    >>> [needed(share, alpha=0.0003, power=0.99) for share in (100, 10, 1)]
    [90, 200, 2067]
    """
    claim = percent("share", share) / 100
    others = [0.95] if claim == 1 else [claim / 10, min(3 * claim, (1 + claim) / 2)]
    return max(statistics.sample_size(claim, alternative=p, alpha=alpha, power=power) for p in others)


def demanded() -> str:
    """An id that Envoy would not sample at 50 percent or less, but that has the mark of a sampled one.

    A proxy treats the mark as the decision of an earlier proxy.
    """
    while True:
        id = str(uuid.uuid4())
        if not predicted(id, 50):
            return f"{id[:14]}9{id[15:]}"


@dataclass(frozen=True)
class Counted:
    """Requests sent at one share: their number, the ids that the proxy's log reports as sampled, and the ids with a trace."""

    share: float
    requests: int
    decided: frozenset[str]
    traced: frozenset[str]

    def test(self, *, alpha: float, least: int) -> ShareTest:
        """Compare the share of requests with a trace with the requested share, by the exact binomial test."""
        return statistics.test_share(len(self.traced), self.requests, self.share / 100, alpha=alpha, needed=least)

    @property
    def differ(self) -> list[str]:
        """The ids about which the proxy's log and Jaeger disagree."""
        return sorted(self.decided ^ self.traced)


def count(kube: Executes, jaeger: Jaeger, log: Callable[[], Sequence[str]], share: float, requests: int) -> Counted:
    """Send requests without ids, and count those with spans in Jaeger; the mesh must already sample at `share`.

    The proxy's access log says which ids it decided to trace. It waits for each of them, at most 10 s, and then counts what
    has arrived, so a lost span shows.

    Args:
        kube: the cluster from which requests are sent.
        jaeger: an open handle.
        log: reads the access log of the proxy that sends.
        share: the percentage that the mesh samples.
        requests: the number of requests.

    Raises:
        CheckFailed: a request failed.
        WaitTimeout: a request is not in the access log, even after a second try.
    """
    try:
        return _count(kube, jaeger, log, share, requests)
    except WaitTimeout:  # if the kubelet has rotated the log meanwhile, it shows only the new file
        return _count(kube, jaeger, log, share, requests)


def _count(kube: Executes, jaeger: Jaeger, log: Callable[[], Sequence[str]], share: float, requests: int) -> Counted:
    began = time.time()
    mark = flood(kube, RATINGS, requests)
    said: dict[str, str] = {}
    traced: frozenset[str] = frozenset()

    def logged() -> bool:
        said.update(decisions(log(), mark))
        return len(said) == requests

    until(
        logged, what="each request to be in the access log", timeout=10, every=0.5,
        last=lambda: f"{len(said)} of {requests}",
    )  # fmt: skip
    decided = frozenset(plain_id(id) for id, decision in said.items() if decision == "sampled")

    def arrived() -> bool:
        nonlocal traced
        frame = jaeger.find(_caller(), since=began - 1)
        own = frame[(frame["service"] == _caller()) & frame["url"].str.contains(f"mark={mark}&", regex=False)]
        traced = frozenset(own["request_id"])
        return decided <= traced

    with contextlib.suppress(WaitTimeout):  # what is missing is counted as missing
        until(arrived, what="the sampled requests to be in Jaeger", timeout=10, every=0.3)
    return Counted(share, requests, decided, traced)


def checks(counted: Mapping[float, Counted], *, alpha: float, power: float) -> dict[str, ShareTest]:
    """The exact test of each share, with a name for the table."""
    return {
        f"traced at {share:g} %": found.test(alpha=alpha, least=needed(share, alpha=alpha, power=power))
        for share, found in counted.items()
    }


def foretell(kube: Executes, jaeger: Jaeger, share: float, *, requests: int = 200) -> tuple[set[str], set[str]]:
    """Send requests with chosen ids; returns which of them Envoy should sample by the rule above, and which have a trace.

    Raises:
        CheckFailed: a request was not answered with 200.
    """
    ids = [str(uuid.uuid4()) for _ in range(requests)]
    began = time.time()
    statuses = request(kube, [(RATINGS, {"x-request-id": id}) for id in ids])
    if set(statuses) != {200}:
        raise CheckFailed(f"expected the status 200 for each request, got {sorted(set(statuses))}")
    foretold = {id for id in ids if predicted(id, share)}
    traced: set[str] = set()

    def arrived() -> bool:
        traced.clear()
        traced.update(set(jaeger.find(_caller(), since=began - 1)["request_id"]) & set(ids))
        return foretold <= traced

    with contextlib.suppress(WaitTimeout):  # the caller compares the two sets
        until(arrived, what="the predicted requests to be in Jaeger", timeout=8, every=0.2)
    return foretold, traced
