"""A picture of an application: who made its pods, and how a Service finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def application(kube: Kube, namespace: str, name: str) -> Picture:
    """A Deployment, its ReplicaSet and its pods on their nodes, and the Service with its EndpointSlice, as the API server has them."""
    pods = kube.pods(namespace, f"app={name}")
    sets = [one for one in kube.json("get", "replicasets", "-n", namespace, "-l", f"app={name}")["items"]
            if one["spec"]["replicas"]]  # fmt: skip
    service = next(s for s in kube.json("get", "services", "-n", namespace)["items"] if s["metadata"]["name"] == name)
    wanted = sum(int(one["spec"]["replicas"]) for one in sets)
    made = [Box("Deployment", (name, f"{wanted} replicas"), colour=2),
            Box("Service", (name, f"{service['spec']['clusterIP']} port {service['spec']['ports'][0]['port']}"), colour=0)]  # fmt: skip
    kept = [
        Box("ReplicaSet", (f"{wanted} pods",), colour=2),
        Box("EndpointSlice", (f"{len(pods)} addresses",), colour=0),
    ]
    nodes: dict[str, list[Box]] = {}
    for number, pod in enumerate(sorted(pods, key=lambda p: str(p["status"].get("podIP"))), 1):
        box = Box(f"pod {number}", (str(pod["status"].get("podIP")),))
        nodes.setdefault(str(pod["spec"]["nodeName"]), []).append(box)
    places = [Box(node, rows=tuple((box,) for box in boxes)) for node, boxes in sorted(nodes.items())]
    arrows = [
        Arrow("Deployment", "ReplicaSet", "makes", colour=2),
        Arrow("Service", "EndpointSlice", "selects", colour=0),
    ]
    for boxes in nodes.values():
        arrows += [Arrow("ReplicaSet", box.key, colour=2) for box in boxes]
        arrows += [Arrow("EndpointSlice", box.key, colour=0) for box in boxes]
    return draw([made, kept, places], arrows, title=f"Who made the pods of {name}, and how its Service finds them")
