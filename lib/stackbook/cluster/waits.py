"""Waits for nodes, pods and rollouts. Their errors say what was last seen, and the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stackbook.cluster.problems import node_problem, pod_problem
from stackbook.core.errors import CommandFailed, WaitTimeout
from stackbook.core.redact import redact
from stackbook.core.waiting import until

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def nodes_ready(kube: Kube, names: Sequence[str], *, timeout: float) -> None:
    """Wait until these nodes are Ready.

    Raises:
        WaitTimeout: with the Ready condition of each node that is not Ready.
    """

    def seen() -> dict[str, str]:
        return {n["metadata"]["name"]: node_problem(n) for n in kube.nodes()}

    def done() -> bool:
        state = seen()
        return all(state.get(name) == "" for name in names)

    def last() -> str:
        state = seen()
        return "; ".join(f"{n}: {state.get(n, 'not registered')}" for n in names if state.get(n) != "")

    what = f"nodes to be Ready: {', '.join(names)}"
    until(done, what=what, timeout=timeout, every=0.2, last=last, tolerate=(CommandFailed,))


def pods_ready(kube: Kube, namespace: str, selector: str, *, count: int | None, timeout: float) -> None:
    """Wait until `count` pods match and all of them are Ready; at least one if `count` is None.

    Raises:
        WaitTimeout: with each pod that is not Ready and its reason, the newest warning and the last log line.
    """

    def done() -> bool:
        pods = kube.pods(namespace, selector)
        enough = len(pods) == count if count is not None else bool(pods)
        return enough and all(pod_problem(p) == "" for p in pods)

    def last() -> str:
        pods = kube.pods(namespace, selector)
        waiting = [f"{p['metadata']['name']}: {pod_problem(p)}" for p in pods if pod_problem(p)]
        return "; ".join(waiting) or f"{len(pods)} pods Ready"

    until(
        done,
        what=f"pods to be Ready in {namespace}" + (f" ({selector})" if selector else ""),
        timeout=timeout,
        every=0.2,
        last=last,
        cause=lambda: explain(kube, namespace, selector),
        tolerate=(CommandFailed,),
    )


def rolled_out(kube: Kube, namespace: str, workload: str, *, timeout: float) -> None:
    """Wait until a rollout is complete; `workload` is like deployment/reviews-v1.

    Raises:
        WaitTimeout: with the last output of kubectl and the likely cause.
    """
    answer = kube.kubectl(
        "rollout", "status", "-n", namespace, workload, f"--timeout={timeout:.0f}s", check=False, timeout=timeout + 10
    )
    if not answer.ok:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        cause = explain(kube, namespace)
        raise WaitTimeout(f"rollout of {workload}", timeout, last=said[-1] if said else "", cause=cause)


def pods_ended(kube: Kube, namespace: str, selector: str, *, what: str, timeout: float) -> None:
    """Wait until no pod that matches is ending: one that was told to end is no longer in `Kube.pods`, and still works.

    Args:
        kube: the cluster.
        namespace: the pods' namespace.
        selector: their labels.
        what: what is waited for, for the error.
        timeout: deadline, in seconds.

    Raises:
        WaitTimeout: with the names of those that have not ended.
    """

    def ending() -> list[str]:
        items = kube.json("get", "pods", "-n", namespace, "-l", selector)["items"]
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" in item["metadata"]]

    until(lambda: not ending(), what=what, timeout=timeout, every=0.2, last=lambda: ", ".join(ending()))


def explain(kube: Kube, namespace: str, selector: str = "") -> str:
    """Why pods are not Ready: the reason, the newest warning event and the last log line of the first such pod."""
    for pod in kube.pods(namespace, selector):
        problem = pod_problem(pod)
        if not problem:
            continue
        name = pod["metadata"]["name"]
        parts = [f"{name}: {problem}"]
        if newest := _newest(kube, namespace, f"involvedObject.name={name},type=Warning"):
            parts.append(f"{newest['reason']}: {_message(newest)}")
        logs = kube.kubectl("logs", "-n", namespace, name, "--all-containers", "--tail=1", check=False)
        if logs.ok and logs.lines:
            parts.append(f"log: {redact(logs.lines[-1])[:300]}")
        return "; ".join(parts)
    if newest := _newest(kube, namespace, "type=Warning"):
        return f"{newest['involvedObject']['name']}: {_message(newest)}"
    return ""


def _newest(kube: Kube, namespace: str, selector: str) -> dict[str, Any] | None:
    """The newest event that a field selector matches."""
    events = kube.json("get", "events", "-n", namespace, "--field-selector", selector)["items"]
    return max(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default=None)


def _message(event: dict[str, Any]) -> str:
    return " ".join(str(event["message"]).split())[:300]
