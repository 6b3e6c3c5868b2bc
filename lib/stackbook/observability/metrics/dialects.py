"""The names of the metrics: Istio's own proxy and upstream Envoy count the same things under different names.

Istio's names: https://istio.io/latest/docs/reference/config/metrics/ ; Envoy's:
https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from stackbook.core.errors import InputError

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_HOST = re.compile(r"outbound\|\d+\|[^|]*\|([^.|]+)\.")


@dataclass(frozen=True)
class Vocabulary:
    """PromQL for the chapters' queries; WINDOW stands for a duration such as 30s, QUANTILE for a number from 0 to 1.

    Attributes:
        name: `istio` or `envoy`.
        metric: the metric that counts requests.
        served: how many requests each pod received, by status, since its proxy started.
        rate: requests per second that each service and version received, by status.
        between: requests to each service of the workloads' namespace in the window, by source and status; each try counts.
        latency: in ms, by service and version, from the histogram's buckets.
        buckets: the metric of those buckets.
        errors, requests: per service, for an alert.
        names: label → its name here: service, version, status, source, destination.
    """

    name: str
    metric: str
    served: str
    rate: str
    between: tuple[str, ...]
    latency: str
    buckets: str
    errors: str
    requests: str
    names: Mapping[str, str]

    def of(self, namespace: str) -> Vocabulary:
        """The same for workloads in another namespace.

        >>> "outbound.*[.]ada[.]" in ENVOY.of("ada").between[0], 'namespace="ada"' in ISTIO.of("ada").between[0]
        (True, True)
        """
        found = (
            q.replace("[.]default[.]", f"[.]{namespace}[.]").replace('="default"', f'="{namespace}"')
            for q in self.between
        )
        return replace(self, between=tuple(found))

    def fill(self, query: str, *, window: float = 30, quantile: float = 0.5) -> str:
        """A query with its placeholders filled in; `window` in seconds."""
        span = f"{window:.0f}s" if window == round(window) else f"{1000 * window:.0f}ms"
        return query.replace("WINDOW", span).replace("QUANTILE", f"{quantile:g}")

    def plain(self, frame: pd.DataFrame) -> pd.DataFrame:
        """An answer with the names that both vocabularies share; an Envoy cluster's name contains its destination."""
        if "cluster_name" in frame:
            frame = frame.assign(destination=frame["cluster_name"].map(destination))
        found = frame.rename(columns={old: new for old, new in self.names.items() if old in frame})
        if "status" in found:
            found = found.assign(status=pd.to_numeric(found["status"], errors="coerce").fillna(0).astype(int))
        return found


def destination(cluster: str) -> str:
    """The service of an outbound cluster of Envoy; empty for other clusters.

    >>> destination("outbound|9080|v1|reviews.default.svc.cluster.local;")
    'reviews'
    """
    found = _HOST.match(cluster)
    return found[1] if found else ""


# Envoy counts each response twice, by its code and by its class (2xx): the query selects one of them.
ENVOY = Vocabulary(
    name="envoy",
    metric="envoy_cluster_upstream_rq",
    served='sum by (pod, app, version, response_code) (envoy_cluster_upstream_rq{cluster_name=~"inbound.*",response_code!=""})',
    rate='sum by (app, version, response_code) (rate(envoy_cluster_upstream_rq{cluster_name=~"inbound.*",response_code!=""}[WINDOW]))',
    between=(
        "sum by (app, cluster_name, response_code) "
        '(increase(envoy_cluster_upstream_rq{cluster_name=~"outbound.*[.]default[.].*",response_code!=""}[WINDOW]))',
        "sum by (app, cluster_name, response_code) "
        '(increase(envoy_cluster_retry_upstream_rq{cluster_name=~"outbound.*[.]default[.].*",response_code!=""}[WINDOW]))',
    ),
    latency="histogram_quantile(QUANTILE, sum by (le, app, version) "
    '(rate(envoy_cluster_upstream_rq_time_bucket{cluster_name=~"inbound.*"}[WINDOW])))',
    buckets="envoy_cluster_upstream_rq_time_bucket",
    errors='sum by (app) (rate(envoy_cluster_upstream_rq{cluster_name=~"inbound.*",response_code=~"5.."}[15s]))',
    requests='sum by (app) (rate(envoy_cluster_upstream_rq{cluster_name=~"inbound.*",response_code!=""}[15s]))',
    names={"app": "service", "response_code": "status"},
)
ISTIO = Vocabulary(
    name="istio",
    metric="istio_requests_total",
    served="sum by (pod, destination_canonical_service, destination_canonical_revision, response_code) "
    '(istio_requests_total{reporter="destination"})',
    rate="sum by (destination_canonical_service, destination_canonical_revision, response_code) "
    '(rate(istio_requests_total{reporter="destination"}[WINDOW]))',
    between=(
        "sum by (source_canonical_service, destination_canonical_service, response_code) "
        '(increase(istio_requests_total{reporter="destination",destination_service_namespace="default"}[WINDOW]))',
    ),
    latency="histogram_quantile(QUANTILE, sum by (le, destination_canonical_service, destination_canonical_revision) "
    '(rate(istio_request_duration_milliseconds_bucket{reporter="destination"}[WINDOW])))',
    buckets="istio_request_duration_milliseconds_bucket",
    errors="sum by (destination_canonical_service) "
    '(rate(istio_requests_total{reporter="destination",response_code=~"5.."}[15s]))',
    requests='sum by (destination_canonical_service) (rate(istio_requests_total{reporter="destination"}[15s]))',
    names={
        "destination_canonical_service": "service",
        "destination_canonical_revision": "version",
        "response_code": "status",
    },
)
QUESTIONS: Mapping[str, Callable[[Vocabulary], str]] = {
    "how often was each service asked?": lambda words: words.served,
    "how many requests a second, by version and status?": lambda words: words.rate,
    "how long did 95 % take at most?": lambda words: words.fill(words.latency, quantile=0.95),
    "who called whom?": lambda words: words.between[0],
    "which share failed? (errors / requests)": lambda words: f"{words.errors} / {words.requests}",
}


def questions() -> list[dict[str, str]]:
    """The chapters' questions as a table, in the vocabulary of Istio's own proxy and in that of upstream Envoy."""
    return [
        {"question": text, "Istio's own proxy": ISTIO.fill(ask(ISTIO)), "upstream Envoy": ENVOY.fill(ask(ENVOY))}
        for text, ask in QUESTIONS.items()
    ]


# Between two services there are a source and a destination, so the names differ from those of the other queries.
_ISTIO_EDGE = {
    "source_canonical_service": "source",
    "destination_canonical_service": "destination",
    "response_code": "status",
}


def edge_names(words: Vocabulary) -> Mapping[str, str]:
    """Label → name in the answers to `between`."""
    return {"app": "source", "response_code": "status"} if words.name == "envoy" else _ISTIO_EDGE


def vocabulary(lab: Lab) -> Vocabulary:
    """The vocabulary of this lab's proxies, found in the ingress gateway's own metrics.

    Raises:
        InputError: the proxies' metrics are neither Istio's nor Envoy's.
    """
    from stackbook.mesh import envoy_admin

    spaces = lab.namespaces
    gateway = "deploy/istio-ingressgateway"
    answer = envoy_admin.ask(lab.kube, gateway, "stats/prometheus", namespace=spaces.gateways, container="")
    if "istio_build" in answer or "istio_requests_total" in answer:
        return ISTIO.of(spaces.workloads)
    if "envoy_cluster_upstream_rq" in answer:
        return ENVOY.of(spaces.workloads)
    raise InputError(
        "the gateway counts no requests", fix="send one through it, or install Istio with its statistics on"
    )
