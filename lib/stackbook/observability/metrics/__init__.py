"""Metrics: Prometheus in the cluster, its answers as DataFrames, and the panels that Kiali and Grafana would show."""

from stackbook.observability.metrics.client import Prometheus, opened
from stackbook.observability.metrics.counting import advanced, agree, around, client_counts, service_counts
from stackbook.observability.metrics.deploy import (
    JOBS,
    PROMETHEUS,
    dashboards,
    install,
    jobs,
    missing,
    missing_in_the_end,
    wait_complete,
    wait_scraped,
)
from stackbook.observability.metrics.dialects import Vocabulary, questions, vocabulary
from stackbook.observability.metrics.graph import draw, edges, service_graph
from stackbook.observability.metrics.scrape_lag import (
    firing,
    gap,
    killed,
    latency_of_observation,
    memory_twice,
    samples,
    wait_usage,
)
from stackbook.traffic.request_keys import KEYS

__all__ = [
    "JOBS",
    "KEYS",
    "PROMETHEUS",
    "Prometheus",
    "Vocabulary",
    "advanced",
    "agree",
    "around",
    "client_counts",
    "dashboards",
    "draw",
    "edges",
    "firing",
    "gap",
    "install",
    "jobs",
    "killed",
    "latency_of_observation",
    "memory_twice",
    "missing",
    "missing_in_the_end",
    "opened",
    "questions",
    "samples",
    "service_counts",
    "service_graph",
    "vocabulary",
    "wait_complete",
    "wait_scraped",
    "wait_usage",
]
