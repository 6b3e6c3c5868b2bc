"""Envoy's administration interface, reached through the pod's own pilot-agent.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result

PROXY = "istio-proxy"


class Cluster(Protocol):
    """Runs a command in a pod, as `stackbook.cluster.kube.Kube` does."""

    def exec(self, namespace: str, pod: str, *argv: str, container: str = "", timeout: float = 60.0) -> Result:
        """Run it."""
        ...


def ask(
    kube: Cluster, workload: str, path: str, *, namespace: str = "", method: str = "GET", container: str = PROXY
) -> str:  # fmt: skip
    """Ask the administration interface of a workload's proxy, and return its answer.

    Args:
        kube: the cluster.
        workload: a pod, or "deploy/…".
        path: such as `config_dump?resource=dynamic_listeners`.
        namespace: its namespace; if empty, that of the workloads.
        method: GET, or POST to change the proxy.
        container: the proxy's container; empty if the pod has only one.

    Raises:
        CommandFailed: there is no such pod, or its proxy does not answer.
    """
    argv = ("pilot-agent", "request", method, path)
    return kube.exec(namespace or here().workloads, workload, *argv, container=container, timeout=60).stdout


def clusters(kube: Cluster, workload: str, host: str) -> list[dict[str, Any]]:
    """What a workload's proxy knows about a host: for each subset, the load balancing and whether it uses TLS."""
    dump = json.loads(ask(kube, workload, "config_dump?resource=dynamic_active_clusters"))
    rows = []
    for entry in dump["configs"]:
        cluster = entry["cluster"]
        direction, _, subset, name = (cluster["name"].split("|") + [""] * 3)[:4]
        if direction == "outbound" and name == host:
            tls = "transport_socket" in cluster or "transport_socket_matches" in cluster
            rows.append({"subset": subset, "balance": cluster.get("lb_policy", "ROUND_ROBIN"), "tls": tls})
    return sorted(rows, key=lambda row: str(row["subset"]))


def endpoints(kube: Cluster, workload: str, cluster: str) -> set[str]:
    """The addresses that a workload's proxy knows for one of its clusters; empty if it has no such cluster."""
    for entry in json.loads(ask(kube, workload, "clusters?format=json"))["cluster_statuses"]:
        if entry["name"] == cluster:
            return {host["address"]["socket_address"]["address"] for host in entry.get("host_statuses", [])}
    return set()


def identity(kube: Cluster, workload: str, *, namespace: str = "") -> str:
    """The SPIFFE id in the certificate that a workload's proxy shows to others.

    Raises:
        CheckFailed: it has none, or several.
    """
    chains = [
        chain
        for entry in json.loads(ask(kube, workload, "certs", namespace=namespace))["certificates"]
        for chain in entry["cert_chain"]
    ]
    names = {name["uri"] for chain in chains for name in chain.get("subject_alt_names", []) if "uri" in name}
    if len(names) != 1:
        raise CheckFailed(f"the proxy of {workload} has {len(names)} identities: {', '.join(sorted(names))}")
    return str(names.pop())


def knowledge(kube: Cluster, workload: str) -> dict[str, int]:
    """The size of a proxy's configuration in bytes, and its number of clusters."""
    known = json.loads(ask(kube, workload, "clusters?format=json"))["cluster_statuses"]
    return {"bytes": len(ask(kube, workload, "config_dump").encode()), "clusters": len(known)}
