"""Deploying Jaeger: applying it, waiting for it, and querying it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.cluster import manifests
from stackbook.config.namespaces import MESH, here
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import until
from stackbook.observability.tracing.jaeger import Jaeger

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

SELECTOR = "app=jaeger"
PORTS = {"tracing": {80}, "zipkin": {9411}, "jaeger-collector": {4317, 4318, 9411}}
"""The ports of Jaeger's Services; the addon's collector has some more, for formats that no longer exist."""


def install(lab: Lab, *, retention_hours: int, step: Step | None = None, timeout: float = 120.0) -> int:
    """Apply Jaeger and wait until it answers; returns the number of changed objects.

    Args:
        lab: the lab.
        retention_hours: how long spans are kept; changing it starts a new Jaeger without the old spans.
        step: the step that records this.
        timeout: deadline in seconds.

    Raises:
        WaitTimeout: it does not become Ready; the error has the reason.
    """
    lab.images.load("tracing", step=step)
    text = manifests.render("jaeger.yaml", image_jaeger=lab.images.reference("jaeger"), retention=f"{retention_hours}h")
    changed = lab.kube.apply(text.replace(f"namespace: {MESH}", f"namespace: {here().monitoring}"))
    if step:
        step.changed += changed
    lab.kube.wait_rollout(here().monitoring, "deployment/jaeger", timeout=timeout)
    answering(lab.kube, timeout=30)
    return changed


def answering(kube: Kube, *, timeout: float) -> None:
    """Wait until Jaeger is Ready and its API answers.

    Raises:
        WaitTimeout: the error has its last answer, and why its pod is not Ready.
    """
    kube.wait_pods(here().monitoring, SELECTOR, count=1, timeout=timeout)

    def asked() -> bool:
        with Jaeger(kube) as jaeger:
            jaeger.services()
        return True

    until(asked, what="Jaeger to answer", timeout=timeout, every=0.3, tolerate=(StackbookError,),
          cause=lambda: kube.explain(here().monitoring, SELECTOR))  # fmt: skip


def ports(kube: Kube) -> list[dict[str, object]]:
    """Jaeger's Services as rows: name, ports, and the label of the pods behind each (K167, K174)."""
    items = kube.json("get", "services", "-n", here().monitoring)["items"]
    return [
        {
            "service": item["metadata"]["name"],
            "ports": ", ".join(str(n) for n in sorted(port["port"] for port in item["spec"]["ports"])),
            "pods": ", ".join(f"{key}={value}" for key, value in item["spec"]["selector"].items()),
        }
        for item in items
        if item["metadata"]["name"] in PORTS
    ]


def readiness(kube: Kube) -> str:
    """Prove that Jaeger is Ready, answers, and has its Services; returns a short summary.

    Raises:
        CheckFailed: a Service lacks a port, or has no pod behind it.
        StackbookError: it does not answer.
    """
    listed = {
        item["metadata"]["name"]: item["spec"]
        for item in kube.json("get", "services", "-n", here().monitoring)["items"]
    }
    for name, ports in PORTS.items():
        if name not in listed:
            raise CheckFailed(f"there is no service {name} in {here().monitoring}", fix="stackbook run --only 11")
        if missing := ports - {port["port"] for port in listed[name]["ports"]}:
            raise CheckFailed(f"the service {name} has no port {sorted(missing)}", fix="stackbook run --only 11")
        if listed[name].get("selector") != {"app": "jaeger"}:
            raise CheckFailed(f"the service {name} selects pods other than Jaeger's: {listed[name].get('selector')}")
    kube.wait_pods(here().monitoring, SELECTOR, count=1, timeout=5)
    with Jaeger(kube) as jaeger:
        return f"Jaeger answers and knows {len(jaeger.services())} services"
