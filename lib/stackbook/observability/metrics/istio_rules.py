"""Recording rules that give upstream Envoy's counters the name and the labels of Istio's `istio_requests_total`.

Each proxy counts the requests that it sends, by Envoy's cluster, whose name holds the service, its namespace and, if a rule of the
mesh names one, the subset. The rules add the names of the source, which are labels of the proxy's own pod, and those of the
destination's workload, if only one workload can be meant: the one of that subset, or the service's only one. Otherwise the
workload is `unknown`, because the sender's proxy does not know which version answered. A request that is retried counts once for
each try, as in `graph.edges`. All requests are called http: the counters do not tell gRPC apart.

Istio's labels: https://istio.io/latest/docs/reference/config/metrics/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

METRIC = "istio_requests_total"
GROUP = "envoy-as-istio"
SENT, LIVE = "mesh:requests:sent", "mesh:workloads:live"
"""Steps on the way: what each proxy sent, and the workloads that have a proxy."""
BY_SUBSET, ALONE = "mesh:workloads:by_subset", "mesh:workloads:alone"
"""The workloads that are the only one of their subset, and the only one of their service."""
TO_WORKLOAD, TO_APP, TO_HOST = "mesh:requests:to_workload", "mesh:requests:to_app", "mesh:requests:to_host"
"""What was sent to a workload that is known; to an app, of which the workload is not known; and to anything else."""
_UNKNOWN = "unknown"
# What Kubernetes makes the ends of pods' names of: https://pkg.go.dev/k8s.io/apimachinery/pkg/util/rand#SafeEncodeString
_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
_WORKLOADS = ("(.+)", "(.+)-[0-9]+", f"(.+)-{_SAFE}{{5}}", f"(.+)-{_SAFE}{{1,10}}-{_SAFE}{{5}}")
"""Names of pods: a pod of its own, one of a StatefulSet, of a DaemonSet, of a Deployment. The last that fits counts."""
_CLUSTER = "outbound[|][0-9]+[|]([^|]*)[|]([^;]+);?"
_HOST = "([^.]+)[.]([^.]+)[.]svc[.].+"
_FIXED = {
    "request_protocol": "http",
    "response_flags": "-",
    "connection_security_policy": _UNKNOWN,
    "source_principal": _UNKNOWN,
    "destination_principal": _UNKNOWN,
    "source_cluster": "Kubernetes",
    "destination_cluster": "Kubernetes",
}
_SERVICE = "destination_service_namespace,destination_service_name"
_WORKLOAD = "destination_workload,destination_canonical_service,destination_canonical_revision"
_REQUESTS = "source_workload_namespace,pod,destination_service,subset,response_code"
"""What tells the series of SENT apart."""


def text(*, interval: float) -> str:
    """The rules as a file for Prometheus.

    Args:
        interval: seconds between two evaluations.
    """
    group = {"name": GROUP, "interval": f"{interval:g}s", "rules": [*_steps(), *_reports()]}
    made: str = yaml.safe_dump({"groups": [group]}, sort_keys=False, width=1000)
    return made


def _steps() -> Iterator[dict[str, Any]]:
    """The rules on the way; each sees the results of those before it."""
    yield {"record": SENT, "expr": _sent()}
    yield {"record": LIVE, "expr": _live()}
    subset, service = f"{_SERVICE},subset", _SERVICE
    yield {"record": BY_SUBSET, "expr": f"{LIVE} and on ({subset}) (count by ({subset}) ({LIVE}) == 1)"}
    yield {"record": ALONE, "expr": f"{LIVE} and on ({service}) (count by ({service}) ({LIVE}) == 1)"}
    joined = f"group_left ({_WORKLOAD})"
    yield {"record": TO_WORKLOAD, "expr": f'{SENT}{{subset!=""}} * on ({subset}) {joined} {BY_SUBSET}'}
    yield {"record": TO_WORKLOAD, "expr": f'{SENT}{{subset=""}} * on ({service}) {joined} {ALONE}'}
    rest = f"({SENT} unless on ({_REQUESTS}) {TO_WORKLOAD})"
    nobody = {"destination_workload": _UNKNOWN, "destination_canonical_revision": _UNKNOWN}
    app = _copied(f"{rest} and on ({service}) {LIVE}", "destination_canonical_service", "destination_service_name")
    yield {"record": TO_APP, "expr": app, "labels": nobody}
    host = f"{rest} unless on ({service}) {LIVE}"
    yield {"record": TO_HOST, "expr": host, "labels": {**nobody, "destination_canonical_service": _UNKNOWN}}


def _sent() -> str:
    """What each proxy sent to services: first tries and others, by pod, source, destination, subset and response code."""
    query = '{__name__=~"envoy_cluster_(retry_)?upstream_rq",cluster_name=~"outbound[|].+",response_code!=""}'
    query = _workload(query, "source")
    query = _replaced(query, "subset", "$1", "cluster_name", _CLUSTER)
    query = _replaced(query, "destination_service", "$2", "cluster_name", _CLUSTER)
    query = _copied(query, "destination_service_name", "destination_service")
    query = _replaced(query, "destination_service_name", "$1", "destination_service", _HOST)
    query = _replaced(query, "destination_service_namespace", "$2", "destination_service", _HOST)
    query = _default(query, "destination_service_namespace", _UNKNOWN)
    query = _copied(query, "destination_workload_namespace", "destination_service_namespace")
    return f"sum without (job,instance,namespace,app,version,cluster_name) ({query})"


def _live() -> str:
    """Each workload whose pods have a proxy, as one of the service after which its app is named, and of the subset of its version."""
    query = _workload("envoy_server_live", "destination")
    query = _copied(query, "destination_service_namespace", "namespace")
    query = _copied(query, "destination_service_name", "destination_canonical_service")
    query = _copied(query, "subset", "destination_canonical_revision")
    return f"group by ({_SERVICE},subset,{_WORKLOAD}) ({query})"


def _reports() -> Iterator[dict[str, Any]]:
    """Both reports that Istio's proxies make, from the same counters: only the sender's proxy knows both ends of a request."""
    query = f'{{__name__=~"{TO_WORKLOAD}|{TO_APP}|{TO_HOST}"}}'
    for side in ("source", "destination"):
        query = _copied(query, f"{side}_app", f"{side}_canonical_service")
        query = _copied(query, f"{side}_version", f"{side}_canonical_revision")
    for reporter in ("source", "destination"):
        yield {"record": METRIC, "expr": f"sum without (subset) ({query})", "labels": {"reporter": reporter, **_FIXED}}


def _workload(query: str, side: str) -> str:
    """Name the workload of the pod that counts, with its namespace, app and version, as one side of a request."""
    for names in _WORKLOADS:
        query = _replaced(query, f"{side}_workload", "$1", "pod", names)
    query = _copied(query, f"{side}_workload_namespace", "namespace")
    query = _copied(query, f"{side}_canonical_service", f"{side}_workload", "app")
    return _default(_copied(query, f"{side}_canonical_revision", "version"), f"{side}_canonical_revision", "latest")


def _copied(query: str, label: str, *sources: str) -> str:
    """The first label has the last of the others that is not empty."""
    for source in sources:
        query = _replaced(query, label, "$1", source, "(.+)")
    return query


def _default(query: str, label: str, value: str) -> str:
    return _replaced(query, label, value, label, "")


def _replaced(query: str, label: str, value: str, source: str, pattern: str) -> str:
    return f'label_replace({query}, "{label}", "{value}", "{source}", "{pattern}")'
