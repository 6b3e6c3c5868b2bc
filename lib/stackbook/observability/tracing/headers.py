"""What headers carry: an id by which log lines are found, and a context that connects spans."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.probe import Probe, request, send
from stackbook.traffic.load_client import Executes
from stackbook.traffic.request_keys import plain_id

if TYPE_CHECKING:
    from stackbook.traffic.testbed import Testbed


def number() -> int:
    """An unused book number: it identifies a request in the path of each service that it reaches."""
    return 10**9 + secrets.randbelow(10**9)


def entries(lines: Sequence[str], holds: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    """The access log entries in a proxy's log that meet a condition."""
    found = []
    for line in lines:
        if line.startswith("{"):
            entry = json.loads(line)
            if "request_id" in entry and holds(entry):
                found.append(entry)
    return found


def logged(testbed: Testbed, request_id: str, wanted: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """The access log entries of one request, by Deployment or pod (K168); Envoy writes its log once a second.

    Args:
        testbed: reads the logs.
        request_id: as it was sent.
        wanted: how many entries each proxy must have; the wait is at most 6 s.

    Raises:
        WaitTimeout: the error has the number of entries found.
    """
    found: dict[str, list[dict[str, Any]]] = {}

    def complete() -> bool:
        for name in wanted:
            lines = testbed.access_log(name, seconds=60)
            found[name] = entries(lines, lambda entry: plain_id(str(entry["request_id"])) == request_id)
        return all(len(found[name]) == count for name, count in wanted.items())

    until(complete, what="the request to be in each log", timeout=6, every=0.4,
          last=lambda: ", ".join(f"{name}: {len(lines)}" for name, lines in found.items()))  # fmt: skip
    return found


def made_by_gateway(testbed: Testbed, path: str) -> str:
    """The id that the ingress gateway gave the one request with this path, from its access log (K171).

    Raises:
        WaitTimeout: it is not in the log after 6 s.
    """

    def found() -> str:
        lines = testbed.access_log("deploy/istio-ingressgateway", namespace=here().gateways, seconds=60)
        ids = [str(entry["request_id"]) for entry in entries(lines, lambda entry: entry.get("path") == path)]
        return ids[0] if len(ids) == 1 else ""

    return until(found, what="the request to be in the gateway's log", timeout=6, every=0.3)


def from_gateway(jaeger: Jaeger, request_id: str, *, since: float, apps: Iterable[str]) -> pd.DataFrame:
    """The trace of the request with this gateway id, once all these services have a span in it and exactly one span has no parent.

    The number of spans does not show whether the trace is complete: reviews v1 does not call ratings, v2 and v3 do.

    Raises:
        WaitTimeout: the error names the services whose spans have arrived.
    """
    wanted = set(apps)
    found = pd.DataFrame({"app": [], "span_id": [], "parent_id": []})

    def whole() -> bool:
        nonlocal found
        answer = jaeger.find(
            f"istio-ingressgateway.{here().gateways}", since=since, tags={"guid:x-request-id": request_id}
        )
        found = answer if len(answer) else found
        return wanted <= set(found["app"]) and list(found["parent_id"].isin(found["span_id"])).count(False) == 1

    until(whole, what="the request's trace to be complete", timeout=15, every=0.2,
          last=lambda: f"{len(found)} spans, of {sorted(set(found['app']))}")  # fmt: skip
    return found


def joining(kube: Executes, jaeger: Jaeger) -> list[dict[str, object]]:
    """Which header makes a span part of the sender's trace; each is sent alone (K172).

    Raises:
        CheckFailed: a request was not answered with 200.
        WaitTimeout: a request has no trace.
    """
    rows: list[dict[str, object]] = []
    for header in ("x-request-id", "x-b3-traceid and others of B3", "traceparent"):
        probe = Probe(f"http://details:9080/details/{number()}")
        sent = {
            "x-request-id": {"x-request-id": probe.request_id},
            "traceparent": {"traceparent": probe.traceparent},
        }.get(header, {"x-b3-traceid": probe.trace_id, "x-b3-spanid": probe.parent_id, "x-b3-sampled": "1"})
        began = time.time()
        if request(kube, [(probe.url, sent)]) != [200]:
            raise CheckFailed(f"the request with {header} was not answered with 200")
        frame = _with_url(jaeger, probe.url, since=began - 1)
        rows.append(
            {
                "header sent": header,
                "the span has that request id": set(frame["request_id"]) == {probe.request_id},
                "the span is in that trace": set(frame["trace_id"]) == {probe.trace_id},
            }
        )
    return rows


def _with_url(jaeger: Jaeger, url: str, *, since: float) -> pd.DataFrame:
    frame = pd.DataFrame()

    def found() -> bool:
        nonlocal frame
        frame = jaeger.find(f"load.{here().workloads}", since=since, tags={"http.url": url})
        return len(frame) >= 2

    until(found, what=f"a trace of the request for {url}", timeout=12, every=0.2, last=lambda: f"{len(frame)} spans")
    return frame


def followed(kube: Executes, jaeger: Jaeger) -> tuple[Probe, pd.DataFrame]:
    """Ask reviews for a book with a unique number; returns the request and its four spans, whatever their traces.

    Raises:
        CheckFailed: the answer was not 200.
        WaitTimeout: fewer than four spans arrived; the error has their number.
    """
    book = number()
    probe = Probe(f"http://reviews:9080/reviews/{book}", request_id=str(uuid.uuid4()))
    beyond = f"http://ratings:9080/ratings/{book}"
    began = time.time()
    if send(kube, probe) != [200]:
        raise CheckFailed("reviews did not answer with 200")
    frame = pd.DataFrame()

    def complete() -> bool:
        nonlocal frame
        ids = {
            probe.trace_id,
            *jaeger.find(f"ratings.{here().workloads}", since=began - 1, tags={"http.url": beyond})["trace_id"],
        }
        frame = jaeger.traces(ids)
        return len(frame) >= 4

    until(complete, what="the spans of the request and of the calls that it caused to be in Jaeger", timeout=15, every=0.2,
          last=lambda: f"{len(frame)} spans")  # fmt: skip
    return probe, frame
