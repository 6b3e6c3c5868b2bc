"""Spans as a tidy table, from the answers of Jaeger's API, one row per span.

The answer's form: github.com/jaegertracing/jaeger model/json/model.go; the tags are Envoy's (source/common/tracing) and
Istio's (istio.canonical_revision and others).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.core.errors import StackbookError
from stackbook.traffic.request_keys import plain_id

if TYPE_CHECKING:
    from stackbook.observability.tracing.jaeger import Jaeger

COLUMNS = (
    "trace_id", "span_id", "parent_id", "service", "app", "operation", "kind", "start", "seconds", "status", "flags",
    "error", "request_id", "decision", "version", "pod", "url", "format", "cluster",
)  # fmt: skip
DECISIONS: Mapping[str, str] = {
    "4": "not traced",
    "9": "sampled",
    "a": "forced by the service",
    "b": "asked for by the client",
}
"""What Envoy notes in the version digit of a request's id (source/extensions/request_id/uuid/config.cc)."""


def parse(traces: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The table of the traces in an answer, in the order of the spans' starts; a span that occurs twice counts once.

    Columns: trace_id (32 hex digits), span_id, parent_id (16; empty for a root), service (as Jaeger names it:
    "reviews.default"), app ("reviews"), operation, kind (client, server, …), start (Unix time), seconds, status (HTTP;
    0 if there is none), flags (Envoy's response flags, "-" for none), error, request_id (with the digit 4 that it
    had when it was made), decision (Envoy's, see `DECISIONS`), version and pod of the workload, url, format (in which
    Jaeger received it: otlp, zipkin), cluster (Envoy's, where the request was sent).

    Raises:
        StackbookError: the answer has an unexpected form.
    """
    try:
        rows = [_row(span, trace["processes"][span["processID"]]) for trace in traces for span in trace["spans"]]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StackbookError(f"Jaeger's answer is not a list of traces: {type(error).__name__}: {error}") from error
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates(["trace_id", "span_id"])
    return frame.sort_values(["start", "seconds"], ascending=[True, False], ignore_index=True)


def _row(span: Mapping[str, Any], process: Mapping[str, Any]) -> tuple[Any, ...]:
    tags = {tag["key"]: tag["value"] for tag in [*process.get("tags", []), *span.get("tags", [])]}
    own = _id(span["traceID"], 32)
    parents = [
        _id(r["spanID"], 16)
        for r in span.get("references", [])
        if r["refType"] == "CHILD_OF" and _id(r["traceID"], 32) == own
    ]
    request_id = str(tags.get("guid:x-request-id", ""))
    app, version, pod = _workload(str(process["serviceName"]), tags)
    return (
        own, _id(span["spanID"], 16), parents[0] if parents else "", str(process["serviceName"]), app,
        str(span["operationName"]), str(tags.get("span.kind", "")), span["startTime"] / 1e6, span["duration"] / 1e6,
        int(tags.get("http.status_code") or 0), str(tags.get("response_flags", "-")), _true(tags.get("error")),
        plain_id(request_id), DECISIONS.get(request_id[14:15], ""), version, pod, str(tags.get("http.url", "")),
        str(tags.get("internal.span.format", "")), str(tags.get("upstream_cluster.name") or tags.get("upstream_cluster", "")),
    )  # fmt: skip


def _id(text: str, digits: int) -> str:
    """An id in full length: Jaeger omits leading zeros."""
    return text.zfill(digits)


def _true(value: Any) -> bool:
    return value in (True, "true")


def _workload(service: str, tags: Mapping[str, Any]) -> tuple[str, str, str]:
    """App, version and pod. A proxy's name looks like "sidecar~10.244.1.7~reviews-v3-5d6f-x.default~default.svc…"."""
    parts = str(tags.get("node_id", "")).split("~")
    pod = parts[2].rpartition(".")[0] if len(parts) > 2 else ""
    return (
        str(tags.get("istio.canonical_service") or service.partition(".")[0]),
        str(tags.get("istio.canonical_revision", "")),
        pod,
    )


def spans(
    jaeger: Jaeger,
    *,
    since: float,
    until: float | None = None,
    services: Sequence[str] = (),
    request_ids: Iterable[str] | None = None,
    limit: int = 50_000,
) -> pd.DataFrame:
    """The spans of each trace in which a service took part, in a time window; see `parse` for the columns.

    Args:
        jaeger: an open handle.
        since: only spans that started at this Unix time or later.
        until: only spans that started before this Unix time; by default now.
        services: services by Jaeger's names, such as the one where all requests start; empty means all that it knows.
        request_ids: keep only traces with a span of one of these requests.
        limit: the maximum number of traces per service.

    Raises:
        CheckFailed: there are more traces than `limit`; it never returns only a part of them.
    """
    frames = [jaeger.find(name, since=since, until=until, limit=limit) for name in services or jaeger.services()]
    found = pd.concat(frames, ignore_index=True) if frames else parse([])
    found = found.drop_duplicates(["trace_id", "span_id"], ignore_index=True)
    if request_ids is None:
        return found
    wanted = {plain_id(id) for id in request_ids}
    kept = set(found.loc[found["request_id"].isin(wanted), "trace_id"])
    return found[found["trace_id"].isin(kept)].reset_index(drop=True)
