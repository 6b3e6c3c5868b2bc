"""The mesh's rules for the Greeter: versions, retries, faults with a gRPC status, access, and trace ids.

Field names and meanings: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import InputError
from stackbook.lessons.grpc import grpc, stubs
from stackbook.lessons.grpc.deployed import INSIDE
from stackbook.mesh import rules as mesh_rules

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

Rule = dict[str, Any]
HOST = "greeter"
VERSIONS = mesh_rules.destination_rule(HOST, versions=["v1", "v2"], namespace=INSIDE)
"""Two subsets; mutual TLS."""
FRESH = mesh_rules.destination_rule(HOST, namespace=INSIDE, connectionPool={"http": {"maxRequestsPerConnection": 1}})
"""One connection between the sidecars for each call. A changed listener serves only new connections; existing ones
keep the old listener until it is drained, with its old rules about access and tracing."""


def routes(*entries: dict[str, Any]) -> Rule:
    """A VirtualService of the Greeter; the first entry that matches applies."""
    return mesh_rules.virtual_service(HOST, *entries, namespace=INSIDE)


def retries(attempts: int, on: str = "unavailable") -> dict[str, Any]:
    """Up to `attempts` retries by the client's sidecar, in addition to the first attempt.

    `on` are Envoy's names of gRPC's codes, in lower case: https://www.envoyproxy.io/docs (x-envoy-retry-grpc-on).
    """
    return {"attempts": attempts, "retryOn": on} if attempts else {"attempts": 0}


def abort(code: str, percent: float) -> dict[str, Any]:
    """Make the client's sidecar end a share of calls with a gRPC status, before they leave the pod.

    >>> abort("UNAVAILABLE", 50)
    {'abort': {'grpcStatus': 'UNAVAILABLE', 'percentage': {'value': 50.0}}}
    """
    if code not in grpc.StatusCode.__members__ or code == "OK":
        raise InputError(f"{code!r} is not an error status of gRPC", fix="write it in capitals, like UNAVAILABLE")
    value = mesh_rules.percent("abort_percent", percent)
    return {"abort": {"grpcStatus": code, "percentage": {"value": value}}}


def client_retries(attempts: int) -> str:
    """A gRPC service config: the client itself makes up to `attempts` attempts if a call ends with UNAVAILABLE."""
    policy = {"maxAttempts": attempts, "initialBackoff": "0.005s", "maxBackoff": "0.02s", "backoffMultiplier": 2,
              "retryableStatusCodes": ["UNAVAILABLE"]}  # fmt: skip
    return json.dumps({"methodConfig": [{"name": [{"service": stubs.SERVICE}], "retryPolicy": policy}]})


def only(account: str) -> Rule:
    """Allow only calls with the identity of this service account of the namespace."""
    principal = f"cluster.local/ns/{INSIDE}/sa/{account}"
    spec = {"selector": {"matchLabels": {"app": HOST}}, "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": [principal]}}]}]}  # fmt: skip
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "callers", "namespace": INSIDE}, "spec": spec}  # fmt: skip


def traced() -> Rule:
    """Make every call a span, and make each sidecar log the `traceparent` that it forwards.

    Spans are recorded but not sent; chapter 11 has a backend for them. So this is an EnvoyFilter, not a Telemetry object,
    which would need a provider in the mesh's configuration.
    """
    tracer = {"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "greeter",
              "grpc_service": {"envoy_grpc": {"cluster_name": "BlackHoleCluster"}}}  # fmt: skip
    line = {"trace": "%REQ(TRACEPARENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "start_time": "%START_TIME%"}  # fmt: skip
    log = {"@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
           "log_format": {"json_format": line}}  # fmt: skip
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "tracing": {"random_sampling": {"value": 100.0}, "overall_sampling": {"value": 100.0},
                    "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": tracer}},
        "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": log}],
    }  # fmt: skip
    patch = {
        "applyTo": "NETWORK_FILTER",
        "match": {"listener": {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}}},
        "patch": {"operation": "MERGE", "value": {"typed_config": manager}},
    }
    return {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "traced", "namespace": INSIDE}, "spec": {"configPatches": [patch]}}  # fmt: skip


@contextlib.contextmanager
def applied(kube: Kube, *rules: Rule) -> Iterator[None]:
    """Apply rules in the Greeter's namespace while the block runs; it waits for the proxies before and after the block.

    Raises:
        InputError: the rules do not fit what is deployed; nothing was applied.
        CheckFailed, WaitTimeout: see `mesh.rules.propagate`; the rules are deleted.
    """
    objects = mesh_rules.parsed(*rules)
    mesh_rules.check(objects, mesh_rules.inventory(kube, INSIDE))
    try:
        mesh_rules.propagate(kube, lambda: kube.apply(objects), objects)
        yield
    finally:
        mesh_rules.propagate(kube, lambda: kube.delete(objects), objects)
