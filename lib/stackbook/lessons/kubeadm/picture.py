"""A picture of the cluster that kubeadm has built: which program runs on which machine, and who asks whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbook.analysis.boxes import Arrow, Box, Picture, draw

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
    arrows = [Arrow("kubectl", server, "HTTPS", colour=0), Arrow(f"etcd on {first}", server, both=True)]
    arrows += [Arrow(f"{name} on {first}", server) for name in _CONTROL]
    arrows += [Arrow(f"kubelet on {name}", server, "" if name == first else "HTTPS", colour=0) for name in machines]
    others = [box for name, box in machines.items() if name not in servers]
    columns = [[Box("kubectl", ("on this host",))], [machines[name] for name in servers], *([others] if others else [])]
    return draw(columns, arrows, title="Which programs run where, and who asks whom")


def _machine(node: dict[str, Any], pods: list[dict[str, Any]]) -> Box:
    name = str(node["metadata"]["name"])
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    here = [pod for pod in pods if pod["spec"].get("nodeName") == name]
    static = {
        str(p["metadata"]["labels"]["component"]) for p in here if _MIRROR in p["metadata"].get("annotations", {})
    }
    rows = [
        tuple(part for part in _CONTROL if part in static),
        *((part,) for part in ("kube-apiserver",) if part in static),
    ]
    last = [part for part in ("etcd",) if part in static]
    proxy = [app for p in here if (app := p["metadata"].get("labels", {}).get("k8s-app")) == "kube-proxy"]
    version = str(node["status"]["nodeInfo"]["kubeletVersion"])
    below = [*(Box(part, ("a static pod",), name=f"{part} on {name}", colour=2) for part in last),
             Box("kubelet", (version,), name=f"kubelet on {name}", colour=0),
             *(Box(part, ("a pod",), name=f"{part} on {name}", colour=3) for part in proxy)]  # fmt: skip
    above = [
        tuple(Box(part, ("a static pod",), name=f"{part} on {name}", colour=2) for part in row) for row in rows if row
    ]
    return Box(name, (str(address),), rows=(*above, tuple(below)))
