"""Nodes in the API: registered, Ready, under pressure, cordoned or tainted."""

from __future__ import annotations

from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.workloads import unscheduled
from stackbook.app.diagnose.snapshot import Snapshot, dig, named
from stackbook.cluster.problems import node_problem


def registered(snapshot: Snapshot) -> Iterator[Cause]:
    """Each machine is a node with the right address."""
    if not snapshot.cluster.listed("nodes") or snapshot.profile.target == "cluster":
        return
    nodes = {named(node): node for node in snapshot.cluster.items("nodes")}
    for machine in snapshot.up:
        node = nodes.get(machine.name)
        if node is None:
            if machine.text("server of kubeconfigs"):
                yield Cause("node-unregistered", "kubelet", f"the API server has no node {machine.name}",
                            (f"its nodes: {', '.join(nodes) or 'none'}",),
                            snapshot.on(machine.name, "systemctl restart kubelet"), weight=3)  # fmt: skip
            continue
        found = [a["address"] for a in dig(node, "status", "addresses", default=[]) if a.get("type") == "InternalIP"]
        if found and machine.address not in found:
            yield Cause("node-address", "kubelet", f"the node {machine.name} is registered under another address",
                        (f"InternalIP {', '.join(found)}", f"the profile says {machine.address}"),
                        snapshot.on(machine.name, "cat /var/lib/kubelet/kubeadm-flags.env; hostname -I"),
                        weight=3)  # fmt: skip


def conditions(snapshot: Snapshot) -> Iterator[Cause]:
    """Each node is Ready and under no pressure."""
    for node in snapshot.cluster.items("nodes"):
        for condition in dig(node, "status", "conditions", default=[]):
            if condition["type"].endswith("Pressure") and condition["status"] == "True":
                yield Cause("node-pressure", "machines", f"{named(node)} is under {condition['type']}: pods are evicted",
                            (f"{condition['type']}: {condition.get('message', 'True')}",), snapshot.on(named(node), "df -h; free -m"),
                            weight=2)  # fmt: skip
        if problem := node_problem(node):
            yield Cause("node-not-ready", "kubelet", f"the node {named(node)} is not Ready", (problem,),
                        snapshot.kubectl(f"describe node {named(node)}"), follows=True, weight=9)  # fmt: skip


def closed(snapshot: Snapshot) -> Iterator[Cause]:
    """No node refuses new pods: cordoned, or tainted while pods are Pending."""
    waiting = unscheduled(snapshot)
    for node in snapshot.cluster.items("nodes"):
        if dig(node, "spec", "unschedulable"):
            yield Cause("node-cordoned", "workloads", f"{named(node)} is cordoned: it gets no new pods",
                        ("spec.unschedulable: true",), snapshot.kubectl(f"uncordon {named(node)}"), weight=0)  # fmt: skip
        for taint in dig(node, "spec", "taints", default=[]):
            key, effect = str(taint.get("key")), str(taint.get("effect"))
            usual = key.startswith(("node.kubernetes.io/", "node-role.kubernetes.io/"))
            if not usual and (effect == "NoExecute" or any("taint" in why for _, why in waiting)):
                seen = [f"taint {key}: {effect}", *(f"{name}: {why}" for name, why in waiting[:2])]
                yield Cause("node-tainted", "workloads", f"{named(node)} has a taint that pods do not tolerate",
                            tuple(seen), snapshot.kubectl(f"taint node {named(node)} {key}:{effect}-"), weight=0)  # fmt: skip


RULES = (registered, conditions, closed)
