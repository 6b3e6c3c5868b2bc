"""A picture of the cluster that kubeadm has built: which program runs on which machine, and who asks whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stackbook.analysis.boxes import Arrow, Box, Picture, draw
from stackbook.cluster import addresses

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

_MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a static pod's copy in the API server."""
_CONTROL = ("kube-scheduler", "kube-controller-manager")


def cluster(kube: Kube) -> Picture:
    """The machines with their kubelets, static pods and kube-proxy, as the API server lists them."""
    pods = kube.pods("kube-system")
    machines = {str(node["metadata"]["name"]): _machine(node, pods) for node in kube.nodes()}
    servers = [name for name, box in machines.items() if any(row[0].title == "kube-apiserver" for row in box.rows)]
    if not servers:  # a cluster whose control plane is out of sight
        return draw([list(machines.values())], title="The machines of the cluster")
    first = servers[0]
    server = f"kube-apiserver on {first}"
    there = {box.key for row in machines[first].rows for box in row}  # etcd may be elsewhere, a program may be missing
    arrows = [Arrow("kubectl", server, "HTTPS", colour=0)]
    arrows += [
        Arrow(part, server, both=name == "etcd")
        for name in ("etcd", *_CONTROL)
        if (part := f"{name} on {first}") in there
    ]
    arrows += [Arrow(f"kubelet on {name}", server, "" if name == first else "HTTPS", colour=0) for name in machines]
    others = [box for name, box in machines.items() if name not in servers]
    columns = [[Box("kubectl", ("on this host",))], [machines[name] for name in servers], *([others] if others else [])]
    return draw(columns, arrows, title="Which programs run where, and who asks whom")


def _machine(node: dict[str, Any], pods: list[dict[str, Any]]) -> Box:
    name = str(node["metadata"]["name"])
    here = [pod["metadata"] for pod in pods if pod["spec"].get("nodeName") == name]
    static = {str(pod["labels"]["component"]) for pod in here if _MIRROR in pod.get("annotations", {})}
    proxies = {"kube-proxy"} & {pod.get("labels", {}).get("k8s-app") for pod in here}

    def parts(names: Iterable[str], words: str, colour: int) -> tuple[Box, ...]:
        return tuple(Box(part, (words,), name=f"{part} on {name}", colour=colour) for part in names)

    rows = (
        parts((part for part in _CONTROL if part in static), "a static pod", 2),
        parts({"kube-apiserver"} & static, "a static pod", 2),
        (
            *parts({"etcd"} & static, "a static pod", 2),
            *parts(["kubelet"], str(node["status"]["nodeInfo"]["kubeletVersion"]), 0),
            *parts(proxies, "a pod", 3),
        ),
    )
    return Box(name, (addresses.of_node(node),), rows=tuple(row for row in rows if row))
