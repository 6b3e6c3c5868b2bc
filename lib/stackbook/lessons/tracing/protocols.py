"""OpenTracing, Zipkin and OTLP: the first was an API and no longer exists, the others are wire formats.

This module writes a span by hand in each format, and posts it to its port; the chapter then looks for it in Jaeger. Sources:
https://zipkin.io/zipkin-api/ (POST /api/v2/spans), https://opentelemetry.io/docs/specs/otlp/ (gRPC on 4317, HTTP on
4318), github.com/open-telemetry/opentelemetry-proto (field numbers), https://github.com/opentracing (archived).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, TransportError
from stackbook.observability.tracing.jaeger import Forwards

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SERVER_KIND = 2
OTLP = """
message ExportTraceServiceRequest { repeated ResourceSpans resource_spans = 1; }
message ExportTraceServiceResponse {}
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
message Resource { repeated KeyValue attributes = 1; }
message ScopeSpans { repeated Span spans = 2; }
message Span {
  bytes trace_id = 1;
  bytes span_id = 2;
  bytes parent_span_id = 4;
  string name = 5;
  int32 kind = 6;
  fixed64 start_time_unix_nano = 7;
  fixed64 end_time_unix_nano = 8;
  repeated KeyValue attributes = 9;
}
message KeyValue { string key = 1; AnyValue value = 2; }
message AnyValue { oneof value { string string_value = 1; } }
"""
"""The parts of opentelemetry-proto's trace.proto, resource.proto, common.proto and trace_service.proto that a span needs."""


@dataclass(frozen=True)
class Handmade:
    """A span that no proxy created: `began` in Unix time, `took` in seconds."""

    service: str
    name: str = "by hand"
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    began: float = field(default_factory=time.time)
    took: float = 0.25
    tags: Mapping[str, str] = field(default_factory=lambda: {"http.status_code": "200", "made": "by hand"})


def _nanoseconds(seconds: float) -> int:
    """Unix time in nanoseconds, with the microsecond precision of a float of this size."""
    return round(seconds * 1e6) * 1000


def as_zipkin(span: Handmade) -> list[dict[str, Any]]:
    """The span in Zipkin's JSON, version 2: times in microseconds.

    >>> as_zipkin(Handmade("shop", took=0.5))[0]["duration"]
    500000
    """
    return [
        {
            "traceId": span.trace_id, "id": span.span_id, "name": span.name, "kind": "SERVER",
            "timestamp": round(span.began * 1e6), "duration": round(span.took * 1e6),
            "localEndpoint": {"serviceName": span.service}, "tags": dict(span.tags),
        }
    ]  # fmt: skip


def as_otlp_json(span: Handmade) -> dict[str, Any]:
    """The span in OTLP's JSON for port 4318: the fields of the messages, ids in hex, times as text."""
    inner = {
        "traceId": span.trace_id, "spanId": span.span_id, "name": span.name, "kind": SERVER_KIND,
        "startTimeUnixNano": str(_nanoseconds(span.began)), "endTimeUnixNano": str(_nanoseconds(span.began + span.took)),
        "attributes": [_attribute(key, value) for key, value in span.tags.items()],
    }  # fmt: skip
    resource = {"attributes": [_attribute("service.name", span.service)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [inner]}]}]}


def _attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def as_otlp(span: Handmade) -> Any:
    """The span as a message for port 4317; protoc generates the classes from the lines above."""
    classes = _classes()
    request = classes["ExportTraceServiceRequest"]()
    part = request.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = span.service
    inner = part.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        name=span.name,
        kind=SERVER_KIND,
        start_time_unix_nano=_nanoseconds(span.began),
        end_time_unix_nano=_nanoseconds(span.began + span.took),
    )
    for key, value in span.tags.items():
        inner.attributes.add(key=key).value.string_value = value
    return request


def _classes() -> Mapping[str, Any]:
    from stackbook.artifacts import protoc

    return protoc.schema(OTLP, package="opentelemetry.proto.trace.v1")


def by_zipkin(kube: Forwards, span: Handmade) -> int:
    """Post the span to the Service `zipkin`, port 9411; returns the HTTP status."""
    return _post(kube, "svc/zipkin", 9411, "/api/v2/spans", as_zipkin(span))


def by_otlp_http(kube: Forwards, span: Handmade) -> int:
    """Post the span to the collector's port 4318; returns the HTTP status."""
    return _post(kube, "svc/jaeger-collector", 4318, "/v1/traces", as_otlp_json(span))


def _post(kube: Forwards, target: str, number: int, path: str, body: Any) -> int:
    with kube.port_forward(here().monitoring, target, number) as port:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}{path}", json=body, timeout=20, trust_env=False)
        except httpx.TransportError as error:
            raise TransportError(f"sending a span to {target} on port {number} failed: {error!r}") from error
    if answer.status_code >= 300:
        raise CheckFailed(f"{target} port {number} answers {answer.status_code}: {answer.text.strip()[:200]}")
    return answer.status_code


def by_otlp_grpc(kube: Forwards, span: Handmade) -> str:
    """Call the collector's Export on port 4317; returns the name of the gRPC status.

    Raises:
        TransportError: the call failed.
    """
    from stackbook.lessons.grpc import grpc

    reply = _classes()["ExportTraceServiceResponse"]
    with (
        kube.port_forward(here().monitoring, "svc/jaeger-collector", 4317) as port,
        # No proxy from the environment: the address is this host's loopback.
        grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel,
    ):
        export = channel.unary_unary(
            EXPORT, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
        )
        try:
            export(as_otlp(span), timeout=20)
        except grpc.RpcError as error:
            raise TransportError(f"the collector's port 4317 refuses a span: {error.details()}") from error
    return "OK"
