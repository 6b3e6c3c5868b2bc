"""The pod network on each machine: kernel parameters, the CNI, flannel's device, routes, kube-proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.snapshot import Machine, Snapshot, dig, named, pod_address
from stackbook.cluster.problems import node_problem, pod_problem
from stackbook.machines.facts import parse_key_values

LAYER = "pod network"
_ANEW = "-n kube-flannel delete pods -l app=flannel"


def kernel(snapshot: Snapshot) -> Iterator[Cause]:
    """The kernel forwards packets, and passes packets on a bridge through the rules of Services."""
    wanted = {
        "net.ipv4.ip_forward": ("forwarding-off", "does not forward packets between its pods and the others"),
        "net.bridge.bridge-nf-call-iptables": (
            "bridge-filter-off",
            "does not pass bridged packets through the rules of Services",
        ),
    }
    for machine in snapshot.up:
        values = parse_key_values(machine["sysctls"].out)  # also if this kernel lacks one of them
        for key, (name, words) in wanted.items():
            if values.get(key) == "0":
                yield Cause(name, LAYER, f"{machine.name} {words}", (f"{key} = 0",),
                            snapshot.on(machine.name, f"sysctl -w {key}=1"), weight=0)  # fmt: skip


def _nodes(snapshot: Snapshot) -> list[Machine]:
    """The machines that kubeadm made nodes."""
    return [m for m in snapshot.up if m.text("server of kubeconfigs")]


def cni(snapshot: Snapshot) -> Iterator[Cause]:
    """The CNI configuration and the plugins that it names exist."""
    for machine in _nodes(snapshot):
        text = machine.text("CNI configuration")
        if machine["CNI configuration"].ok and not text.strip():
            fix = snapshot.kubectl(_ANEW) if _daemonset(snapshot) else snapshot.stackbook("run", "--only 03")
            yield Cause("cni-config-missing", LAYER, f"{machine.name} has no CNI configuration: its node cannot be Ready",
                        ("/etc/cni/net.d has no *.conf and no *.conflist",), fix, weight=1)  # fmt: skip
        missing = sorted(_plugins(text) - set(machine.text("CNI plugins").split()))
        if missing and machine["CNI plugins"].ok:
            yield Cause("cni-plugin-missing", LAYER, f"{machine.name} lacks CNI plugins that its configuration names",
                        (f"/opt/cni/bin has no {', '.join(missing)}",),
                        f"{snapshot.on(machine.name, 'cp -n /usr/lib/cni/* /opt/cni/bin/')} && {snapshot.kubectl(_ANEW)}",
                        weight=1)  # fmt: skip


def not_loaded(snapshot: Snapshot) -> Iterator[Cause]:
    """Containerd has read the current CNI configuration: it can miss a file that was moved into the folder."""
    nodes = {named(node): node_problem(node) for node in snapshot.cluster.items("nodes")}
    for machine in _nodes(snapshot):
        problem = nodes.get(machine.name, "")
        if "cni plugin not initialized" in problem and _plugins(machine.text("CNI configuration")):
            yield Cause("cni-not-loaded", LAYER, f"containerd on {machine.name} has not read the existing CNI configuration",
                        (problem, "/etc/cni/net.d has a configuration"),
                        snapshot.on(machine.name, "systemctl restart containerd"), weight=2)  # fmt: skip


def _plugins(text: str) -> set[str]:
    """The plugins that a CNI configuration needs; flannel's plugin calls bridge and host-local."""
    try:
        data: Any = json.loads(text)
    except ValueError:
        return set()
    found = {str(p.get("type")) for p in data.get("plugins", [data]) if p.get("type")}
    return found | ({"bridge", "host-local", "loopback"} if "flannel" in found else set())


def _daemonset(snapshot: Snapshot, name: str = "kube-flannel-ds") -> dict[str, Any]:
    return next((d for d in snapshot.cluster.items("daemonsets") if named(d) == name), {})


def flannel(snapshot: Snapshot) -> Iterator[Cause]:
    """Flannel exists, and runs on each node."""
    if snapshot.profile.target == "cluster" or not snapshot.cluster.listed("daemonsets"):
        return
    found = _daemonset(snapshot)
    again = snapshot.stackbook("run", "--only 03 --again")
    if not found:
        yield Cause("flannel-missing", LAYER, "flannel is not installed: no node gets routes to the others' pods",
                    ("there is no daemonset kube-flannel-ds",), again, weight=2)  # fmt: skip
        return
    wanted, nodes = dig(found, "status", "desiredNumberScheduled", default=0), len(snapshot.cluster.items("nodes"))
    if wanted < nodes:
        yield Cause("flannel-missing", LAYER, f"flannel should run on only {wanted} of {nodes} nodes",
                    (f"nodeSelector: {dig(found, 'spec', 'template', 'spec', 'nodeSelector', default={})}",), again,
                    weight=2)  # fmt: skip
    for pod in snapshot.cluster.items("pods"):
        if dig(pod, "metadata", "labels", "app") == "flannel" and (problem := pod_problem(pod)):
            node = dig(pod, "spec", "nodeName", default="no node")
            yield Cause("flannel-failing", LAYER, f"flannel is not ready on {node}", (f"{named(pod)}: {problem}",),
                        snapshot.kubectl(f"-n kube-flannel logs {named(pod)} --all-containers --tail=20"),
                        follows=node in {m.name for m in snapshot.machines.values() if not m.answered},
                        weight=3)  # fmt: skip
    for item in snapshot.cluster.items("flannel"):
        text = dig(item, "data", "net-conf.json", default="")
        if text and f'"{snapshot.profile.pod_cidr}"' not in text:
            yield Cause("flannel-network", LAYER, "flannel's network is not the cluster's pod network",
                        (f"net-conf.json: {' '.join(text.split())}", f"kubeadm has {snapshot.profile.pod_cidr}"), again,
                        weight=2)  # fmt: skip


def leases(snapshot: Snapshot) -> Iterator[Cause]:
    """Flannel has written each machine's pod subnet to a file that the CNI plugin reads."""
    for machine in _nodes(snapshot):
        if machine["subnet.env"].rc == 1 and "flannel" in machine.text("CNI configuration"):
            yield Cause("subnet-env-missing", LAYER, f"{machine.name} has no subnet for its pods",
                        ("/run/flannel/subnet.env is missing",), snapshot.kubectl(_ANEW), weight=4)  # fmt: skip


def vxlan(snapshot: Snapshot) -> Iterator[Cause]:
    """The VXLAN device is up and knows the other machines, and the routes to their pods use it."""
    if snapshot.profile.flannel_backend != "vxlan" or snapshot.profile.target == "cluster":
        return
    devices = {m.name: _link(m, "flannel.1") for m in _nodes(snapshot) if m["links"].ok}
    for machine in _nodes(snapshot):
        device = devices.get(machine.name)
        if device is None or machine["subnet.env"].rc == 1:
            continue
        if not device:
            yield Cause("vxlan-missing", LAYER, f"{machine.name} has no device flannel.1", ("ip link: no flannel.1",),
                        snapshot.kubectl(_ANEW), weight=5)  # fmt: skip
            continue
        if "UP" not in device.get("flags", []):
            fix = f"{snapshot.on(machine.name, 'ip link set flannel.1 up')} && {snapshot.kubectl(_ANEW)}"
            yield Cause("vxlan-down", LAYER, f"the device flannel.1 of {machine.name} is down",
                        (f"ip link: flannel.1 {','.join(device.get('flags', []))}",), fix, weight=5)  # fmt: skip
            continue
        yield from _towards(snapshot, machine, devices)


def _towards(snapshot: Snapshot, machine: Machine, devices: dict[str, dict[str, Any]]) -> Iterator[Cause]:
    entries = machine.text("forwarding entries").lower()
    routes = {route.get("dst"): route for route in machine["routes"].json() or []}
    for other in _nodes(snapshot):
        if other is machine or not devices.get(other.name):
            continue
        mac = str(devices[other.name].get("address", "")).lower()
        wanted = f"{mac} dst {other.address}"
        if machine["forwarding entries"].ok and mac and wanted not in entries:
            yield Cause("vxlan-entry", LAYER, f"{machine.name} has no forwarding entry for the pods of {other.name}",
                        (f"bridge fdb show dev flannel.1: no entry {wanted}",), snapshot.kubectl(_ANEW), weight=5)  # fmt: skip
        subnet = parse_key_values(other.text("subnet.env")).get("FLANNEL_SUBNET", "")
        network = ".".join([*subnet.split(".")[:3], "0"]) + "/24" if subnet.endswith(".1/24") else ""
        if network and routes and network not in routes:
            yield Cause("pod-route-missing", LAYER, f"{machine.name} has no route to the pods of {other.name}",
                        (f"ip route: nothing to {network}",), snapshot.kubectl(_ANEW), weight=6)  # fmt: skip


def _link(machine: Machine, name: str) -> dict[str, Any]:
    return next((dict(link) for link in machine["links"].json() or [] if link and link.get("ifname") == name), {})


def reach(snapshot: Snapshot) -> Iterator[Cause]:
    """Each machine reaches the other machines' kubelets and pod networks."""
    for machine in _nodes(snapshot):
        for other in _nodes(snapshot):
            pods = machine.answers.get(f"pods of {other.name}")
            if pods and not pods.ok:
                yield Cause("pods-unreachable", LAYER, f"{machine.name} does not reach the pod network of {other.name}",
                            (f"ping {pod_address(other)}: no answer",),
                            snapshot.on(machine.name, f"ping -c 2 {pod_address(other)}; ip route; bridge fdb show dev flannel.1"),
                            follows=True, weight=8)  # fmt: skip
            answer = machine.answers.get(f"kubelet of {other.name}")
            if answer and answer.out.strip() in ("", "000"):
                yield Cause("kubelet-unreachable", LAYER, f"{machine.name} does not reach the kubelet of {other.name}",
                            (f"curl https://{other.address}:10250/healthz: no answer",),
                            snapshot.on(machine.name, f"curl -vk https://{other.address}:10250/healthz"),
                            follows=True, weight=8)  # fmt: skip


def kube_proxy(snapshot: Snapshot) -> Iterator[Cause]:
    """kube-proxy runs on each node and reports that it works: without it, no Service works."""
    if snapshot.profile.target == "cluster" or not snapshot.cluster.listed("daemonsets"):
        return
    found = _daemonset(snapshot, "kube-proxy")
    wanted, nodes = dig(found, "status", "desiredNumberScheduled", default=0), len(snapshot.cluster.items("nodes"))
    if not found or wanted < nodes:
        seen = (
            f"daemonset kube-proxy should run on {wanted} of {nodes} nodes"
            if found
            else "there is no daemonset kube-proxy"
        )
        yield Cause("kube-proxy-missing", LAYER, "kube-proxy does not run on every node: there, Services do not work", (seen,),
                    snapshot.on(snapshot.profile.control_plane.name,
                                "kubeadm init phase addon kube-proxy --config /etc/stackbook/kubeadm.yaml"),
                    weight=3)  # fmt: skip
        return
    for machine in _nodes(snapshot):
        if (code := machine["kube-proxy healthz"].out.strip()) != "200":
            yield Cause("kube-proxy-failing", LAYER, f"kube-proxy on {machine.name} does not report that it works",
                        (f"http://127.0.0.1:10256/healthz: {code or 'no answer'}",),
                        snapshot.kubectl("-n kube-system logs -l k8s-app=kube-proxy --tail=20"), follows=True,
                        weight=7)  # fmt: skip


RULES = (kernel, cni, not_loaded, flannel, leases, vxlan, reach, kube_proxy)
