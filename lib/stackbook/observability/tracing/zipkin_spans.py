"""Spans of Jaeger's API as Zipkin takes them.

Zipkin's form: https://zipkin.io/zipkin-api/#/default/post_spans; Jaeger's: github.com/jaegertracing/jaeger model/json/model.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stackbook.core.errors import StackbookError

_KINDS = ("client", "server", "producer", "consumer")
_LEFT_OUT = ("span.kind", "internal.span.format")
"""Tags that Zipkin has as a field, or that Jaeger added."""


def converted(traces: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spans of an answer of Jaeger, in Zipkin's form (times in microseconds), in the same order.

    Zipkin's protocol lets a client and a server share one span id. The server's span is then marked as shared, so that Zipkin does not
    take both for one span that was sent twice.

    Raises:
        StackbookError: the answer has an unexpected form.
    """
    try:
        return [
            span
            for trace in traces
            for used in [Counter(str(span["spanID"]) for span in trace["spans"])]
            for found in trace["spans"]
            for span in [_span(found, trace["processes"][found["processID"]], shared=used[str(found["spanID"])] > 1)]
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StackbookError(f"Jaeger's answer is not a list of traces: {type(error).__name__}: {error}") from error


def _span(span: Mapping[str, Any], process: Mapping[str, Any], *, shared: bool) -> dict[str, Any]:
    tags = {str(tag["key"]): _text(tag["value"]) for tag in [*process.get("tags", []), *span.get("tags", [])]}
    kind = tags.get("span.kind", "").lower()
    parents = [str(r["spanID"]) for r in span.get("references", []) if r["refType"] == "CHILD_OF"]
    made: dict[str, Any] = {
        "traceId": str(span["traceID"]).zfill(32),
        "id": str(span["spanID"]).zfill(16),
        "name": str(span["operationName"]),
        "timestamp": int(span["startTime"]),
        "duration": max(int(span["duration"]), 1),  # Zipkin takes 0 for "not known"
        "localEndpoint": {"serviceName": str(process["serviceName"])},
        "tags": {key: value for key, value in tags.items() if key not in _LEFT_OUT},
        "annotations": [_annotation(log) for log in span.get("logs") or []],
    }
    if parents:
        made["parentId"] = parents[0].zfill(16)
    if kind in _KINDS:
        made["kind"] = kind.upper()
    if shared and kind == "server":
        made["shared"] = True
    return made


def _annotation(log: Mapping[str, Any]) -> dict[str, Any]:
    fields = {str(field["key"]): _text(field["value"]) for field in log.get("fields", [])}
    words = fields.get("event") or " ".join(f"{key}={value}" for key, value in fields.items())
    return {"timestamp": int(log["timestamp"]), "value": words}


def _text(value: object) -> str:
    """A tag's value, as Zipkin takes texts only.

    >>> _text(True), _text(200), _text("GET")
    ('true', '200', 'GET')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
