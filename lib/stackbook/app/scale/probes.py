"""What is measured of a lab: memory, the API server's latency, istiod's pushes, and the size of a proxy's configuration."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Mapping
from typing import Any

from stackbook.artifacts.build_queue import free_memory
from stackbook.lab.lab import Lab
from stackbook.mesh import envoy_admin, istio

_REQUESTS = 60
_METRICS = f"/api/v1/namespaces/{istio.NAMESPACE}/services/http:istiod:15014/proxy/metrics"
_PUSH = "pilot_proxy_convergence_time"


def memory() -> float:
    """The memory of this host that new processes could have, in GiB."""
    return free_memory() / (1 << 30)


def api_latency(lab: Lab) -> dict[str, float]:
    """Milliseconds of a small request to the API server: median and 95th percentile of 60, and of one list of all pods."""
    samples = []
    for _ in range(_REQUESTS):
        begin = time.perf_counter()
        lab.kube.api.read_namespaced_service("kubernetes", "default")
        samples.append(1000 * (time.perf_counter() - begin))
    begin = time.perf_counter()
    lab.kube.api.list_pod_for_all_namespaces(_preload_content=False)
    listed = 1000 * (time.perf_counter() - begin)
    return {
        "median": round(statistics.median(samples), 2),
        "p95": round(statistics.quantiles(samples, n=20)[-1], 2),
        "list of all pods": round(listed, 1),
    }


def pushes(lab: Lab) -> dict[str, float]:
    """What istiod has counted since it started: pushes to proxies, and their seconds from the change to the last proxy."""
    text = lab.kube.kubectl("get", f"--raw={_METRICS}").stdout
    return {"count": counted(text, f"{_PUSH}_count"), "seconds": counted(text, f"{_PUSH}_sum")}


def counted(text: str, name: str) -> float:
    r"""The sum of a metric over all its labels, in Prometheus' text format.

    >>> counted('a_sum{type="cds"} 1.5\na_sum 2\na_sum_more 9\n', "a_sum")
    3.5
    """
    return sum(float(value) for value in re.findall(rf"(?m)^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", text))


def push_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Mean seconds of istiod's pushes between two calls of `pushes`; 0 if there were none."""
    number = after["count"] - before["count"]
    return round((after["seconds"] - before["seconds"]) / number, 3) if number > 0 else 0.0


def configuration(lab: Lab) -> float:
    """The size of the whole configuration of productpage's proxy, endpoints included, in MiB."""
    text = envoy_admin.ask(lab.kube, "deploy/productpage-v1", "config_dump?include_eds")
    return round(len(text.encode()) / (1 << 20), 2)


def everything(lab: Lab) -> dict[str, Any]:
    """Every figure that needs no comparison with an earlier one."""
    latency = api_latency(lab)
    return {
        "free GiB": round(memory(), 2),
        "API median ms": latency["median"],
        "API p95 ms": latency["p95"],
        "API list ms": latency["list of all pods"],
        "proxy configuration MiB": configuration(lab),
    }
