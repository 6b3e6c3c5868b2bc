"""Switching parts of tracing off and on again: header forwarding in a service, istiod, Jaeger itself."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackbook.cluster import addresses, crash
from stackbook.config.namespaces import MESH, here
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import until
from stackbook.machines.transports import Host
from stackbook.mesh.rules import Rule, proxies
from stackbook.observability.tracing import deploy
from stackbook.observability.tracing.telemetry import PROMPT, set_runtime

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.traffic.testbed import Testbed

SWITCH = "FORWARD_TRACE_HEADERS"
"""An environment variable of lib/apps' bookinfo: with "false", a service does not forward the trace headers."""
CONTROL_PLANE = "deployment/istiod"


def forwarding(kube: Kube, workload: str) -> bool:
    """Whether a Deployment's program forwards the trace headers; by default it does."""
    spec = kube.json("get", f"deployment/{workload}")["spec"]["template"]["spec"]
    values = {e["name"]: e.get("value", "") for c in spec["containers"] for e in c.get("env", [])}
    return str(values.get(SWITCH, "true")).lower() not in ("false", "0", "f")


def _forward(kube: Kube, testbed: Testbed, workload: str, on: bool, timeout: float) -> None:
    flag = f"{SWITCH}-" if on else f"{SWITCH}=false"
    kube.kubectl("set", "env", f"deployment/{workload}", flag)
    kube.wait_rollout(here().workloads, f"deployment/{workload}", timeout=timeout)
    testbed.settle()
    set_runtime(kube, PROMPT, only=f"app={workload.partition('-')[0]}")


@contextlib.contextmanager
def not_forwarding(kube: Kube, testbed: Testbed, workload: str, *, timeout: float = 60.0) -> Iterator[None]:
    """Stop a workload's program from forwarding the trace headers while the block runs; then it forwards them again.

    The pods are replaced twice, because the program reads the switch at its start. The new pods' proxies also send each
    span at once (see `telemetry.prompt`).

    Raises:
        WaitTimeout: the new pods are not Ready, or the sending proxy does not know them.
    """
    try:
        _forward(kube, testbed, workload, False, timeout)
        yield
    finally:
        _forward(kube, testbed, workload, True, timeout)


@contextlib.contextmanager
def without_istiod(kube: Kube, *, timeout: float = 60.0) -> Iterator[None]:
    """Stop istiod while the block runs; then start as many as before. `reconnected` waits for them.

    Raises:
        WaitTimeout: it does not stop.
    """
    before = int(kube.json("get", CONTROL_PLANE, "-n", MESH)["spec"]["replicas"])
    try:
        _scale(kube, 0)
        until(lambda: not kube.pods(MESH, "app=istiod") and not _serving(kube), what="istiod to stop serving",
              timeout=timeout, every=0.2)  # fmt: skip
        yield
    finally:
        _scale(kube, max(before, 1))


@contextlib.contextmanager
def reconnecting(kube: Kube) -> Iterator[set[str]]:
    """After the block, wait until istiod runs and each proxy that was connected to it is connected again; yields their ids."""
    known = set(proxies(kube))
    try:
        yield known
    finally:
        reconnected(kube, known)


def reconnected(kube: Kube, known: set[str], *, timeout: float = 90.0) -> None:
    """Wait until istiod runs and these proxies are connected to it, except those whose pods have been deleted.

    That takes about 20 s: a proxy's first try goes to the address of the deleted istiod pod, and gRPC gives it up only after its
    minimum connect timeout (https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md). A proxy whose connection is
    refused instead retries after pauses that grow to 30 s.

    Raises:
        WaitTimeout: istiod does not start, or a proxy is missing; the error says which.
    """
    kube.wait_rollout(MESH, CONTROL_PLANE, timeout=timeout)
    missing: set[str] = set()

    def back() -> bool:
        missing.clear()
        missing.update(known - set(proxies(kube)))
        if missing:
            missing.intersection_update(_standing(kube))
        return not missing

    until(back, what="the proxies to connect to istiod again", timeout=timeout, every=0.3,
          last=lambda: f"missing: {', '.join(sorted(missing))}", tolerate=(StackbookError,))  # fmt: skip


def _standing(kube: Kube) -> set[str]:
    """The pods that are not being deleted, by their proxies' ids."""
    pods = [pod["metadata"] for pod in kube.json("get", "pods", "-A")["items"]]
    return {f"{pod['name']}.{pod['namespace']}" for pod in pods if "deletionTimestamp" not in pod}


def _scale(kube: Kube, count: int) -> None:
    kube.kubectl("scale", CONTROL_PLANE, "-n", MESH, f"--replicas={count}")


def _serving(kube: Kube) -> bool:
    return bool(addresses.endpoints(kube, MESH, "istiod", ready=True))


def refused(kube: Kube, rule: Rule) -> str:
    """Why the API server refuses a rule while istiod, which validates it, is down; empty if it accepts the rule.

    The limit is 2 s: the longer istiod is down, the longer the proxies wait before they try it again (at most 30 s).
    """
    flags = ("--request-timeout=2s", "-f", "-")
    answer = kube.kubectl("apply", *flags, stdin=json.dumps(rule), check=False, timeout=60)
    return "" if answer.ok else " ".join(answer.stderr.split())[-400:]


def restarts(kube: Kube) -> int:
    """How often Jaeger's container has been restarted in its pod."""
    pods = kube.pods(here().monitoring, deploy.SELECTOR)
    return sum(s["restartCount"] for pod in pods for s in pod["status"].get("containerStatuses", []))


def kill(kube: Kube, machines: Mapping[str, Host], *, timeout: float = 200.0) -> tuple[float, float]:
    """Kill Jaeger's process with SIGKILL, and wait until Kubernetes has restarted it and it answers.

    Returns the Unix times of both. Kubernetes restarts it at once the first time, but pauses before each further restart
    within ten minutes: 10 s, 20 s, 40 s, …

    Raises:
        CheckFailed: there is no such container, or it runs on a machine that is not the lab's.
        WaitTimeout: it does not come back.
    """
    pods = kube.pods(here().monitoring, deploy.SELECTOR)
    if len(pods) != 1:
        raise CheckFailed(f"there are {len(pods)} Jaeger pods, expected 1")
    before = restarts(kube)
    at = time.time()
    crash.kill(machines, pods[0])
    until(lambda: restarts(kube) > before, what="Jaeger's container to restart", timeout=timeout, every=0.3,
          last=lambda: f"{restarts(kube)} restarts", cause=lambda: kube.explain(here().monitoring, deploy.SELECTOR))  # fmt: skip
    deploy.answering(kube, timeout=timeout)
    return at, time.time()
