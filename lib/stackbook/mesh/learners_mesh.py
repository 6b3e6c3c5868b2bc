"""The mesh of an existing cluster: an administrator has installed it. A learner checks it, and has gateways of their own in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbook.cluster.manifests import render
from stackbook.config.namespaces import here
from stackbook.core import yaml_text
from stackbook.core.errors import CheckFailed, CommandFailed
from stackbook.mesh import istio

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

GATEWAYS = ("istio-ingressgateway", "istio-egressgateway")
_REVISION = "istio.io/rev"


def problem(kube: Kube) -> str:
    """Why the chapters cannot use this mesh; empty if they can."""
    try:
        if not istio.components(kube).get(istio.ISTIOD):
            return "istiod is not available in istio-system"
        settings = kube.json("get", "configmap", "istio", "-n", istio.NAMESPACE)["data"].get("mesh", "")
    except CommandFailed as error:
        return f"the mesh cannot be read: {error.result.stderr.strip()[-200:]}"
    mesh: dict[str, Any] = yaml_text.load(settings) or {}
    if not mesh.get("accessLogFile") or mesh.get("accessLogEncoding") != "JSON":
        return "the mesh's proxies do not write access logs as JSON"
    return ""


FIX = (
    "an administrator runs: istioctl install --set profile=default --set meshConfig.accessLogFile=/dev/stdout "
    "--set meshConfig.accessLogEncoding=JSON"
)
"""What helps against a `problem`."""


def join(lab: Lab) -> int:
    """Check the mesh, start the learner's gateways, and wait until they are available; returns the number of changes.

    Raises:
        CheckFailed: there is no mesh, or the chapters cannot use it.
        WaitTimeout: a gateway is not available.
    """
    if found := problem(lab.kube):
        raise CheckFailed(found, fix=FIX)
    demand_injection(lab.kube)
    changed = lab.kube.apply(manifest())
    for name in GATEWAYS:
        lab.kube.wait_rollout(here().gateways, f"deployment/{name}", timeout=120)
    return changed


def manifest() -> str:
    """The manifest of the learner's gateways."""
    return render(
        "gateways.yaml",
        ingress=here().gateway_label("ingressgateway"),
        egress=here().gateway_label("egressgateway"),
    )


def demand_injection(kube: Kube) -> None:
    """Demand that new pods of the learner's namespace get a sidecar.

    Raises:
        CheckFailed: the namespace has no label for it.
    """
    name = here().workloads
    labels = kube.json("get", "namespace", name)["metadata"].get("labels", {})
    if labels.get("istio-injection") != "enabled" and _REVISION not in labels:
        raise CheckFailed(
            f"the namespace {name} has neither the label istio-injection=enabled nor {_REVISION}",
            fix=f"an administrator runs: kubectl label namespace {name} istio-injection=enabled",
        )
