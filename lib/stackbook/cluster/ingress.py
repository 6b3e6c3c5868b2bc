"""The address at which this host reaches the mesh's ingress gateway."""

from __future__ import annotations

import json

from stackbook.cluster import addresses
from stackbook.cluster.kube import Kube
from stackbook.config.namespaces import MESH
from stackbook.core.errors import CheckFailed


def ingress_url(kube: Kube, namespace: str = MESH) -> str:
    """The URL of the ingress gateway on port 80, without a path.

    Args:
        kube: the cluster.
        namespace: the gateway's namespace.

    It uses the service's external address if there is one, otherwise the NodePort of port http2 on the first node's address.

    Raises:
        CheckFailed: there is no such service, or it has no port named http2.
    """
    answer = kube.kubectl("get", "svc", "istio-ingressgateway", "-n", namespace, "-o", "json", check=False)
    if not answer.ok:
        raise CheckFailed("there is no service istio-ingressgateway", fix="run chapter 05: stackbook run --only 05")
    service = json.loads(answer.stdout)
    for entry in service["status"].get("loadBalancer", {}).get("ingress", []):
        if address := entry.get("ip") or entry.get("hostname"):
            return f"http://{address}"
    ports = {p.get("name"): p for p in service["spec"]["ports"]}
    if "nodePort" not in ports.get("http2", {}):
        raise CheckFailed("the service istio-ingressgateway has no NodePort named http2")
    return f"http://{addresses.of_node(kube.nodes()[0])}:{ports['http2']['nodePort']}"
