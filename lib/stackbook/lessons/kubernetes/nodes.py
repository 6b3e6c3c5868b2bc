"""What a node is to Kubernetes: its role, its kube-proxy, and the pods that its runtime knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def roles(lab: Lab) -> list[dict[str, Any]]:
    """Each node's role labels: today's, and the guide's (K46)."""
    label = "node-role.kubernetes.io/"
    return [
        {"node": n["metadata"]["name"], "control-plane label": f"{label}control-plane" in n["metadata"]["labels"],
         "master label": f"{label}master" in n["metadata"]["labels"]}
        for n in lab.kube.nodes()
    ]  # fmt: skip


def proxy_modes(lab: Lab) -> dict[str, str]:
    """kube-proxy's mode on each node, according to itself (K55)."""
    ask = ["curl", "-sS", "-m", "5", "http://localhost:10249/proxyMode"]
    return {name: host.run(ask).stdout.strip() for name, host in lab.machines.items()}


def views(lab: Lab) -> list[dict[str, Any]]:
    """How many pods each node's runtime knows, compared with the cluster (K42): the sets, not only the numbers."""
    every = {(p["metadata"]["namespace"], p["metadata"]["name"]): p["spec"].get("nodeName")
             for p in lab.kube.json("get", "pods", "-A")["items"] if p["status"].get("phase") == "Running"}  # fmt: skip
    rows = []
    for name, host in lab.machines.items():
        mine = {k for k, node in every.items() if node == name}
        known = {m for m in _sandboxes(host) if m in every}
        rows.append({"view": f"containerd on {name}", "sees only its own pods": known <= mine and bool(known)})
    rows.append({"view": "the API server", "sees only its own pods": len(set(every.values())) == 1})
    return rows


def _sandboxes(host: Host) -> set[tuple[str, str]]:
    """(namespace, pod) of each container on a machine, from the labels that the kubelet sets."""
    found = set()
    for identifier in host.run(["ctr", "-n", "k8s.io", "containers", "ls", "-q"]).lines:
        answer = host.run(["ctr", "-n", "k8s.io", "containers", "info", identifier], check=False)
        if answer.ok:
            labels = json.loads(answer.stdout).get("Labels") or {}
            if "io.kubernetes.pod.name" in labels:
                found.add((labels["io.kubernetes.pod.namespace"], labels["io.kubernetes.pod.name"]))
    return found
