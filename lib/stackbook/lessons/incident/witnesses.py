"""The three signals of an incident as tables: the metrics, the spans and the log lines of bookinfo; each piece can be looked up again.

with opened(lab, since=…, before=…) as see:
    see.compare('sum(rate(envoy_cluster_upstream_rq{app="details"}[15s]))')
    see.spans(), see.lines()
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.core.errors import InputError
from stackbook.lessons.incident.causes import PLACES
from stackbook.lessons.incident.facts import LOG, METRIC, TRACE, Fact
from stackbook.lessons.incident.reports import Evidence, Metric
from stackbook.observability import metrics, tracing
from stackbook.observability.logs import client, queries
from stackbook.observability.metrics.dialects import Vocabulary, destination
from stackbook.traffic.request_keys import plain_id

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

SPAN_COLUMNS = ("signal", "id", "time", "trace", "service", "version", "kind", "target", "status", "flags", "seconds", "own", "cluster",
                "request_id")  # fmt: skip
LINE_COLUMNS = ("signal", "id", "time", "service", "version", "container", "kind", "target", "status", "flags", "seconds", "cluster",
                "details", "reason", "message", "request_id")  # fmt: skip
ENTRY = "productpage.default"
"""The service that all requests of customers pass."""
WINDOW = 45.0
"""How many seconds a table goes back by default: a few hundred requests."""
_MOST = 3000


@dataclass(frozen=True)
class Witnesses:
    """Open connections to Prometheus, Jaeger and Elasticsearch. Complaints began at `since`; `before`, all was healthy (Unix times)."""

    prometheus: metrics.Prometheus
    words: Vocabulary
    jaeger: tracing.Jaeger
    store: client.Store
    since: float
    before: float

    # metrics

    def ask(self, query: str, at: float | None = None) -> float | None:
        """The one value of a PromQL query; None if there is no answer.

        Raises:
            InputError: it has several answers, or cannot be read.
        """
        found = self.prometheus.query(query, at=at)
        if len(found) > 1:
            raise InputError(f"{query} has {len(found)} answers", fix="sum them: sum(…)")
        value = float(found["value"].iloc[0]) if len(found) else None
        return None if value is None or value != value else value

    def compare(self, query: str) -> dict[str, Any]:
        """Ask a query now and before the incident; returns query, at (Unix time), value, before."""
        at = time.time()
        return {"query": query, "at": at, "value": self.ask(query, at), "before": self.ask(query, self.before)}

    # traces

    def spans(self, *, seconds: float = WINDOW) -> pd.DataFrame:
        """The spans of the last seconds of the incident, newest trace last; see `SPAN_COLUMNS`.

        `kind` is client (the caller's proxy) or server (the callee's), `target` the callee. `own` is the part of a server span that
        none of its calls explains, in seconds.
        """
        start = max(self.since, time.time() - seconds)
        return span_rows(self.jaeger.find(ENTRY, since=start, limit=_MOST))

    # logs

    def lines(self, *, seconds: float = WINDOW, services: Sequence[str] = PLACES) -> pd.DataFrame:
        """The log lines of bookinfo's pods in the last seconds of the incident, by time; see `LINE_COLUMNS`."""
        start = max(self.since, time.time() - seconds)
        conditions = [queries.between(start, None), {"terms": {"service": list(services)}},
                      queries.term("kubernetes.namespace", "default")]  # fmt: skip
        return line_rows(self.store.documents(queries.both(conditions)))

    # one piece, looked up again

    def fact(self, evidence: Evidence, *, before: float) -> Fact | None:
        """What a piece of evidence says now; see `grading.Reader`."""
        if isinstance(evidence, Metric):
            values = {"value": self.ask(evidence.query, evidence.at), "before": self.ask(evidence.query, before)}
            return metric_fact(evidence.query, **values, at=evidence.at)
        if evidence.signal == TRACE:
            trace, _, span = evidence.id.partition("/")
            found = span_rows(self.jaeger.traces([trace])) if trace else span_rows(tracing.parse([]))
            rows = found[found["id"] == f"{trace}/{span}"]
        else:
            rows = line_rows(self.store.documents({"ids": {"values": [evidence.id]}}, most=10))
        return dict(rows.iloc[0]) if len(rows) else None


def metric_fact(query: str, *, value: float | None, before: float | None, at: float) -> Fact:
    """A metric as a fact; it is about the one service that its query names.

    >>> metric_fact('up{app="details"}', value=None, before=1.0, at=0)["target"]
    'details'
    """
    named = [place for place in PLACES if place in query]
    return {"signal": METRIC, "service": "", "target": named[0] if len(named) == 1 else "", "kind": "", "container": "",
            "time": at, "value": value, "before": before}  # fmt: skip


def span_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Spans of `tracing.parse` as rows of evidence."""
    if frame.empty:
        return pd.DataFrame(columns=list(SPAN_COLUMNS))
    key = ["trace_id", "span_id"]
    inner = frame.groupby(["trace_id", "parent_id"])["seconds"].sum().rename("inner")
    joined = frame.merge(inner, left_on=key, right_index=True, how="left")
    own = (joined["seconds"] - joined["inner"].fillna(0)).clip(lower=0)
    found = pd.DataFrame({
        "signal": TRACE, "id": joined["trace_id"] + "/" + joined["span_id"], "time": joined["start"], "trace": joined["trace_id"],
        "service": joined["app"], "version": joined["version"], "kind": joined["kind"],
        "target": joined["operation"].str.partition(".")[0], "status": joined["status"], "flags": joined["flags"],
        "seconds": joined["seconds"], "own": own.where(joined["kind"] == "server", 0.0), "cluster": joined["cluster"],
        "request_id": joined["request_id"], "container": "istio-proxy",
    })  # fmt: skip
    # A server span is about its own service, whatever its route is called.
    found["target"] = found["service"].where(found["kind"] == "server", found["target"])
    return found.reset_index(drop=True)


def line_rows(documents: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Documents of the logs as rows of evidence."""
    frame = pd.DataFrame([_line(one) for one in documents], columns=list(LINE_COLUMNS))
    return frame.sort_values("time", ignore_index=True)


def _line(document: Mapping[str, Any]) -> tuple[Any, ...]:
    service, owner = str(document.get("service", "")), document["kubernetes"]
    access: Mapping[str, Any] = document.get("access") or {}
    fields: Mapping[str, Any] = document.get("fields") or {}
    cluster = str(access.get("cluster") or "")
    inbound = not access or access.get("direction") == "inbound" or not destination(cluster)
    message = str(document.get("message", ""))
    return (
        LOG, document["_id"], pd.Timestamp(document["@timestamp"]).timestamp(), service, document.get("version", ""),
        owner["container"], "program" if not access else "server" if inbound else "client", service if inbound else destination(cluster),
        int(access.get("status") or 0) if access else 200, str(access.get("flags") or "-"),
        int(access.get("milliseconds") or 0) / 1000, cluster, str(access.get("details") or ""),
        str(fields.get("upstream_transport_failure_reason") or fields.get("connection_termination_details") or ""),
        message[:500], plain_id(str(document.get("request_id", ""))),
    )  # fmt: skip


def metric_row(found: Mapping[str, Any]) -> Metric:
    """Evidence from `Witnesses.compare`."""
    return Metric(str(found["query"]), found["value"], float(found["at"]))


@contextlib.contextmanager
def opened(lab: Lab, *, since: float, before: float) -> Iterator[Witnesses]:
    """Connect to Prometheus, Jaeger and Elasticsearch while the block runs.

    Raises:
        CheckFailed: one of them is not installed; the fix names the chapter to run.
    """
    words = metrics.vocabulary(lab)
    with (
        metrics.opened(lab.kube) as prometheus,
        tracing.Jaeger(lab.kube) as jaeger,
        client.opened(lab.kube, timeout=30) as store,
    ):
        yield Witnesses(prometheus, words, jaeger, store, since, before)


__all__ = ["Witnesses", "line_rows", "metric_fact", "opened", "span_rows"]
