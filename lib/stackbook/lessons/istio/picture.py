"""A picture of the mesh: bookinfo's pods with their proxies, the ingress gateway and istiod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw
from stackbook.mesh import bookinfo, istio

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_CALLS = {"productpage-v1": ("details-v1", "reviews-v1", "reviews-v2", "reviews-v3"), "reviews-v2": ("ratings-v1",),
          "reviews-v3": ("ratings-v1",)}  # fmt: skip
"""Who calls whom in bookinfo; chapter 05 finds it out from the answers."""
_COLUMNS = (("productpage-v1",), ("details-v1", "reviews-v1", "reviews-v2", "reviews-v3"), ("ratings-v1",))


def mesh(lab: Lab) -> Picture:
    """The sample bookinfo in the mesh: each pod with its containers and its node, as the API server has them."""
    kube = lab.kube
    pods = {}
    for pod in kube.pods(lab.namespace):
        labels = pod["metadata"].get("labels", {})
        pods[f"{labels.get('app')}-{labels.get('version')}"] = pod
    gates = kube.pods(lab.namespaces.gateways, f"istio={lab.namespaces.gateway_label('ingressgateway')}")
    masters = kube.pods(istio.NAMESPACE, "app=istiod")

    def box(name: str) -> Box:
        pod = pods[name]
        parts = [
            *pod["spec"]["containers"],
            *(c for c in pod["spec"].get("initContainers", []) if c.get("restartPolicy")),
        ]
        inside = sorted((str(part["name"]) for part in parts), key=lambda part: part == "istio-proxy")
        return Box(name, (str(pod["spec"]["nodeName"]),), name=name, rows=(
            tuple(Box(part, name=f"{part} of {name}", colour=0 if part == "istio-proxy" else None) for part in inside),))  # fmt: skip

    entry = Box("ingress gateway", tuple(f"Envoy on {pod['spec']['nodeName']}" for pod in gates[:1]), colour=0)
    head = Box("istiod", tuple(f"on {pod['spec']['nodeName']}" for pod in masters[:1]), colour=2)
    columns = [[head, entry], *([box(name) for name in column if name in pods] for column in _COLUMNS)]
    arrows = [Arrow("istiod", "ingress gateway", "settings", colour=2)]
    if "productpage-v1" in pods:
        arrows += [
            Arrow("ingress gateway", "productpage-v1", "HTTP", colour=0),
            Arrow("istiod", "productpage-v1", "settings", colour=2),
        ]
    arrows += [
        Arrow(one, other, colour=0) for one, others in _CALLS.items() for other in others if {one, other} <= set(pods)
    ]
    missing = sorted(set(bookinfo.WORKLOADS) - set(pods))
    title = "bookinfo in the mesh: each pod has a proxy" + (f" (missing: {', '.join(missing)})" if missing else "")
    return draw([column for column in columns if column], arrows, title=title)
