"""The state of a lab, read from the live system."""

from __future__ import annotations

from typing import Any

from stackbook.app import life
from stackbook.cluster.problems import node_problem
from stackbook.core.errors import StackbookError
from stackbook.lab.lab import Lab
from stackbook.machines.providers import Embedded, VirtualMachines
from stackbook.mesh import istio


def status(lab: Lab) -> dict[str, Any]:
    """Machines, nodes, Istio's components and the ingress: each with its state, or with the reason why it is unknown."""
    running = set(lab.provider.machines()) if lab.profile.target != "cluster" else set()
    found: dict[str, Any] = {
        "profile": lab.profile.name,
        "target": lab.profile.target,
        "stopped": isinstance(lab.provider, Embedded | VirtualMachines)
        and not running
        and life.is_stopped(lab.provider),
        "machines": {n.name: {"address": n.address, "running": n.name in running} for n in lab.profile.nodes}
        if lab.profile.target != "cluster"
        else {},
        "nodes": {},
        "istio": {},
        "ingress": "",
        "kubeconfig": str(lab.kubeconfig) if lab.kubeconfig.exists() else "",
        "problems": [],
    }
    if not found["kubeconfig"] or found["stopped"]:
        return found
    try:
        found["nodes"] = {n["metadata"]["name"]: node_problem(n) or "Ready" for n in lab.kube.nodes()}
        found["istio"] = {k: "available" if ok else "not available" for k, ok in istio.components(lab.kube).items()}
        found["ingress"] = lab.ingress if "istio-ingressgateway" in found["istio"] else ""
    except StackbookError as error:
        found["problems"].append(str(error).splitlines()[0])
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The state for a terminal."""
    text = [f"profile {found['profile']}, target {found['target']}"]
    text += ["the lab is stopped: stackbook start continues it"] if found["stopped"] else []
    off = "stopped" if found["stopped"] else "not running"
    text += [
        f"machine  {n:14} {m['address']:15} {'running' if m['running'] else off}" for n, m in found["machines"].items()
    ]
    text += [f"node     {n:14} {state}" for n, state in found["nodes"].items()]
    text += [f"istio    {n:22} {state}" for n, state in found["istio"].items()]
    text += [f"ingress  {found['ingress']}"] if found["ingress"] else []
    text += [f"problem  {p}" for p in found["problems"]]
    return text
