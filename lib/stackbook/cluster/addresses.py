"""The addresses of a node, of a Service and of its endpoints, and whether an address lies in a network."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def cluster_ip(kube: Kube, namespace: str, service: str) -> str:
    """The cluster IP of a Service."""
    return str(kube.json("get", "service", service, "-n", namespace)["spec"]["clusterIP"])


def endpoints(kube: Kube, namespace: str, service: str, *, ready: bool = False) -> list[dict[str, Any]]:
    """The endpoints in a Service's EndpointSlices; with `ready`, only those that are ready. Each has `addresses`, IPs."""
    slices = kube.json("get", "endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")
    found = [endpoint for part in slices["items"] for endpoint in part.get("endpoints") or []]
    return [e for e in found if e.get("conditions", {}).get("ready")] if ready else found


def of_node(node: Mapping[str, Any]) -> str:
    """The address at which other machines reach a node: its InternalIP.

    Raises:
        CheckFailed: its kubelet has not reported one.
    """
    found = [str(one["address"]) for one in node["status"].get("addresses", []) if one["type"] == "InternalIP"]
    if not found:
        raise CheckFailed(f"the node {node['metadata']['name']} has no InternalIP", fix="stackbook diagnose")
    return found[0]


def inside(address: str, network: str) -> bool:
    """Whether an address lies in a network; the network may be written with host bits set. Nothing lies in an empty one.

    >>> inside("10.244.1.7", "10.244.1.0/24"), inside("10.244.2.7", "10.244.1.1/24")
    (True, False)
    """
    return bool(network) and ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
