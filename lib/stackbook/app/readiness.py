"""Whether a cluster is Ready after its machines were restarted: states from before the restart do not count."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from stackbook.cluster.kube import Kube
from stackbook.cluster.problems import node_problem, pod_problem
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import until

Object = Mapping[str, Any]


def stamp(seconds: float) -> str:
    """A time in Kubernetes' format, to the second.

    >>> stamp(0)
    '1970-01-01T00:00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def waiting(nodes: Iterable[Object], pods: Iterable[Object], names: Collection[str], since: str) -> list[str]:
    """What is not Ready yet after the restart, in words, nodes first.

    A node's kubelet must have reported, and a pod's containers must have started, after the restart. Pods that have completed
    are left out.

    Args:
        nodes: the nodes from the API.
        pods: the pods from the API.
        names: the nodes whose machines were restarted; pods on other nodes only have to be Ready.
        since: when the restart began, in the format of `stamp`.
    """
    known = {str(node["metadata"]["name"]): dict(node) for node in nodes}
    everyone = sorted({*known, *names})
    found = [
        f"{name}: {problem}"
        for name in everyone
        if (problem := _of_node(known.get(name), since if name in names else ""))
    ]
    for pod in pods:
        over = pod["status"].get("phase") in ("Failed", "Succeeded") or "deletionTimestamp" in pod["metadata"]
        fresh = since if pod["spec"].get("nodeName") in names else ""
        if not over and (problem := _of_pod(dict(pod), fresh)):
            found.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}: {problem}")
    return found


def _of_node(node: dict[str, Any] | None, since: str) -> str:
    if node is None:
        return "not registered"
    ready: Object = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), {})
    if str(ready.get("lastHeartbeatTime", "")) < since:
        return "its kubelet has not reported yet"
    return node_problem(node)


def _of_pod(pod: dict[str, Any], since: str) -> str:
    started = [
        str(status.get("state", {}).get("running", {}).get("startedAt", ""))
        for status in pod["status"].get("containerStatuses", [])
    ]
    if problem := pod_problem(pod):
        return problem
    return "not restarted yet" if any(at < since for at in started) else ""


def answers(kube: Kube, *, timeout: float) -> None:
    """Wait until the API server answers.

    Raises:
        WaitTimeout: it does not answer in time.
    """
    until(
        kube.ready, what="the API server to answer", timeout=timeout, every=0.3,
        cause=lambda: "see stackbook diagnose", tolerate=(StackbookError,),
    )  # fmt: skip


def wait(kube: Kube, names: Collection[str], began: float, *, timeout: float) -> int:
    """Wait until these nodes and all pods are Ready after a restart; returns the number of pods.

    Args:
        kube: the cluster.
        names: the nodes whose machines were restarted.
        began: when the restart began, in seconds since the epoch.
        timeout: deadline in seconds.

    Raises:
        WaitTimeout: something is not Ready; the error names it.
    """
    seen: list[str] = []
    count = 0

    def done() -> bool:
        nonlocal seen, count
        pods = kube.json("get", "pods", "-A")["items"]
        seen, count = waiting(kube.nodes(), pods, names, stamp(began)), len(pods)
        return not seen

    until(
        done, what="all nodes and pods to be Ready again", timeout=max(1.0, timeout - (time.time() - began)), every=0.5,
        last=lambda: "; ".join(seen[:5]) + (f"; and {len(seen) - 5} more" if len(seen) > 5 else ""),
        tolerate=(StackbookError,),
    )  # fmt: skip
    return count
