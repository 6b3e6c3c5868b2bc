"""Traces: a real Jaeger, the mesh's spans as tables, and what a trace must look like.

    with Jaeger(lab.kube) as jaeger:
        frame = jaeger.traces([probe.trace_id])
        problems(frame, hop("load", "reviews", hop("reviews", "ratings")))

The parts: span_table (one row per span), trace_tree (what a trace must look like), telemetry (how the mesh traces), probe
(requests that can be found again), sampling, outages (things switched off), headers, observation, figures.
"""

from stackbook.observability.tracing.deploy import install, ports, readiness
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.probe import Probe, flood, send
from stackbook.observability.tracing.span_table import COLUMNS, parse, spans
from stackbook.observability.tracing.telemetry import (
    PROVIDER,
    TRACER,
    Tracer,
    built_in,
    ensure_provider,
    in_force,
    prompt,
    provider,
    provider_kinds,
    sampled,
    share_in_proxies,
    tracers,
    untraced,
)
from stackbook.observability.tracing.trace_tree import Hop, edges, hop, misnested, outline, page, problems

__all__ = [
    "COLUMNS",
    "PROVIDER",
    "TRACER",
    "Hop",
    "Jaeger",
    "Probe",
    "Tracer",
    "built_in",
    "edges",
    "ensure_provider",
    "flood",
    "hop",
    "in_force",
    "install",
    "misnested",
    "outline",
    "page",
    "parse",
    "ports",
    "problems",
    "prompt",
    "provider",
    "provider_kinds",
    "readiness",
    "sampled",
    "send",
    "share_in_proxies",
    "spans",
    "tracers",
    "untraced",
]
