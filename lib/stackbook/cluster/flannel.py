"""flannel: its manifest for this lab, its leases, and switching its backend.

The manifest is `Documentation/kube-flannel.yml` of the release, changed only where the lab needs something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from stackbook.cluster.early_pods import SUBNET
from stackbook.cluster.kube import Kube
from stackbook.core import yaml_text
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.transports import Host

NAMESPACE = "kube-flannel"
DAEMONSET = "daemonset/kube-flannel-ds"
BACKENDS = ("vxlan", "host-gw", "udp")
# Device of each backend; host-gw has no device, its routes use the machines' own interface.
DEVICES = {"vxlan": "flannel.1", "udp": "flannel0", "host-gw": ""}
# Bytes that each backend's encapsulation takes from the MTU: outer IP 20, UDP 8, and for VXLAN 8 + inner Ethernet 14.
OVERHEAD = {"vxlan": 50, "udp": 28, "host-gw": 0}


def manifest(
    text: str,
    *,
    network: str,
    backend: str,
    images: Mapping[str, str],
    cni_version: str = "",
    preloaded: bool = False,
) -> str:
    """Flannel's manifest for this lab.

    Args:
        text: the release's manifest.
        network: the pod network, which must equal kubeadm's (K18).
        backend: vxlan, host-gw or udp.
        images: references of `flannel` and `flannel-cni-plugin`.
        cni_version: version for the CNI configuration, if the plugin supports only an older one; empty keeps the release's.
        preloaded: the images are already on the machines; never pull them.

    Raises:
        InputError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise InputError(f"flannel has no backend {backend!r} in this lab", fix=f"choose one of {', '.join(BACKENDS)}")
    documents = [d for d in yaml_text.load_all(text) if d]
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["data"]["net-conf.json"] = json.dumps(net_conf(network, backend), indent=2)
            if cni_version:
                conf = json.loads(document["data"]["cni-conf.json"])
                conf["cniVersion"] = cni_version
                document["data"]["cni-conf.json"] = json.dumps(conf, indent=2)
        if document["kind"] == "DaemonSet":
            _daemonset(document["spec"]["template"]["spec"], backend, images, preloaded)
    return yaml.safe_dump_all(documents, sort_keys=False)


def net_conf(network: str, backend: str) -> dict[str, Any]:
    """Flannel's net-conf.json."""
    return {"Network": network, "EnableNFTables": False, "Backend": {"Type": backend}}


def _daemonset(spec: dict[str, Any], backend: str, images: Mapping[str, str], preloaded: bool) -> None:
    for container in [*spec["initContainers"], *spec["containers"]]:
        name = "flannel-cni-plugin" if "cni-plugin" in container["image"] else "flannel"
        container["image"] = images[name]
        container["imagePullPolicy"] = "Never" if preloaded else "IfNotPresent"
        if container["name"] == "kube-flannel":
            # Probe readiness one second after the start instead of five: flannel is ready by then.
            container["readinessProbe"].update({"initialDelaySeconds": 1, "periodSeconds": 1})
            if backend == "udp":  # flanneld carries each packet through a TUN device
                container["securityContext"] = {"privileged": True}
                container["volumeMounts"].append({"name": "tun", "mountPath": "/dev/net/tun"})
    spec["terminationGracePeriodSeconds"] = 5
    if backend == "udp":
        spec["volumes"].append({"name": "tun", "hostPath": {"path": "/dev/net/tun", "type": "CharDevice"}})


@dataclass(frozen=True)
class Lease:
    """What flannel has written about one node: its subnet, and the endpoint that other nodes use."""

    node: str
    subnet: str
    public_ip: str
    backend: str
    mac: str
    internal_ip: str


def leases(kube: Kube) -> list[Lease]:
    """The lease of each node, from its annotations: with --kube-subnet-mgr, flannel stores leases in the API server (K111)."""
    found = []
    for node in kube.nodes():
        notes = node["metadata"].get("annotations", {})
        data = json.loads(notes.get("flannel.alpha.coreos.com/backend-data", "{}") or "{}") or {}
        addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
        found.append(
            Lease(
                node=node["metadata"]["name"],
                subnet=node["spec"].get("podCIDR", ""),
                public_ip=notes.get("flannel.alpha.coreos.com/public-ip", ""),
                backend=notes.get("flannel.alpha.coreos.com/backend-type", ""),
                mac=data.get("VtepMAC", ""),
                internal_ip=addresses.get("InternalIP", ""),
            )
        )
    return found


def running_backend(kube: Kube) -> str:
    """The backend in flannel's configuration; empty if flannel is not installed."""
    answer = kube.kubectl(
        "-n", NAMESPACE, "get", "cm", "kube-flannel-cfg", "-o", r"jsonpath={.data.net-conf\.json}", check=False
    )
    return str(json.loads(answer.stdout)["Backend"]["Type"]) if answer.ok and answer.stdout else ""


def switch(kube: Kube, machines: Mapping[str, Host], text: str, backend: str, *, timeout: float = 300.0) -> None:
    """Change the backend: apply its configuration, restart flanneld, and remove the old backend's device and routes.

    flannel does not remove them. Its old routes are more specific, so traffic would still use them.

    Raises:
        WaitTimeout: the routes of the new backend did not appear.
    """
    kube.apply(text)
    kube.kubectl("-n", NAMESPACE, "delete", "pods", "-l", "app=flannel", "--grace-period=1", "--wait=true", timeout=60)
    for host in machines.values():
        remove_leftovers(host, keep=backend)
    for host in machines.values():
        until(
            lambda host=host: routed(host, backend),  # type: ignore[misc]
            what=f"{host.name} to route the pod network by {backend}",
            timeout=timeout,
            every=0.2,
            last=lambda host=host: host.run(["ip", "route"]).stdout.replace("\n", "; "),  # type: ignore[misc]
            cause=lambda: kube.explain(NAMESPACE),
        )
        remove_leftovers(host, keep=backend)


def remove_leftovers(host: Host, *, keep: str) -> None:
    """Remove the devices and routes of the other backends."""
    names = {i.name for i in facts.INTERFACES.read(host)}
    for backend, device in DEVICES.items():
        if device and backend != keep and device in names:
            host.run(["ip", "link", "delete", device])
    if keep != "host-gw":
        for route in _direct_routes(host):
            host.run(["ip", "route", "delete", route["dst"], "via", route["gateway"]], check=False)


def _direct_routes(host: Host) -> list[dict[str, Any]]:
    """Routes to pods of other nodes through the machine's own interface; flannel's subnets are /24."""
    routes = facts.ROUTES.read(host)
    uplink = next((r.get("dev") for r in routes if r.get("dst") == "default"), "")
    return [r for r in routes if r.get("gateway") and r["dst"].endswith("/24") and r.get("dev") == uplink]


def routed(host: Host, backend: str) -> bool:
    """Whether this machine has routes to the pods of other machines through this backend.

    With udp, one route to the device covers the whole pod network; with other backends, each other node has its own route.
    """
    if backend == "host-gw":
        return bool(_direct_routes(host))
    return any(route.get("dev") == DEVICES[backend] for route in facts.ROUTES.read(host))


def check_networks(kube: Kube, network: str) -> None:
    """Check that every node's subnet lies in flannel's network (K18).

    Raises:
        CheckFailed: a subnet lies outside.
    """
    import ipaddress

    whole = ipaddress.ip_network(network)
    for lease in leases(kube):
        if not lease.subnet or not ipaddress.ip_network(lease.subnet).subnet_of(whole):  # type: ignore[arg-type]
            raise CheckFailed(f"{lease.node} has the subnet {lease.subnet or 'none'}, outside of flannel's {network}")


@dataclass(frozen=True)
class Packet:
    """One encapsulated packet as captured between the machines."""

    outer_source: str
    outer_target: str
    outer_port: int
    vni: int
    inner_source: str
    inner_target: str
    inner_protocol: str


_OUTER = re.compile(
    r"IP (\d+\.\d+\.\d+\.\d+)\.\d+ > (\d+\.\d+\.\d+\.\d+)\.(\d+): (?:OTV|VXLAN).*?(?:instance|vni) (\d+)"
)
_INNER = re.compile(r"IP (\d+\.\d+\.\d+\.\d+)(?:\.\d+)? > (\d+\.\d+\.\d+\.\d+)(?:\.\d+)?: (\w+)")


def parse_capture(text: str) -> list[Packet]:
    """The VXLAN packets in tcpdump's output (`tcpdump -nn udp port 8472`).

    Without `-T vxlan`, tcpdump prints port 8472 as OTV, which has the same header.
    """
    found = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        outer = _OUTER.search(line)
        inner = _INNER.search(lines[index + 1]) if outer and index + 1 < len(lines) else None
        if outer and inner:
            found.append(
                Packet(outer[1], outer[2], int(outer[3]), int(outer[4]), inner[1], inner[2], inner[3].rstrip(","))
            )
    return found


def ready_after_registration(kube: Kube) -> dict[str, bool]:
    """Whether each node's Ready condition turned True after the node had been registered (K25)."""
    found = {}
    for node in kube.nodes():
        ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
        found[node["metadata"]["name"]] = bool(
            ready["status"] == "True" and ready["lastTransitionTime"] >= node["metadata"]["creationTimestamp"]
        )
    return found


def arguments(kube: Kube) -> list[str]:
    """The arguments that flanneld runs with."""
    spec = kube.json("-n", NAMESPACE, "get", DAEMONSET)["spec"]["template"]["spec"]
    return list(next(c for c in spec["containers"] if c["name"] == "kube-flannel")["args"])


def draw_packet(packet: Packet) -> Any:
    """A captured packet as nested boxes with its addresses, as a matplotlib figure."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    from stackbook.analysis.display import PALETTE

    fig, axes = plt.subplots(figsize=(14, 2.8))
    parts = [
        (0.0, 2.2, "outer\nEthernet\n14 bytes", PALETTE[6]),
        (2.2, 5.4, f"outer IP, 20 bytes\n{packet.outer_source}\n→ {packet.outer_target}", PALETTE[0]),
        (5.4, 7.4, f"UDP\n8 bytes\nport {packet.outer_port}", PALETTE[5]),
        (7.4, 9.4, f"VXLAN\n8 bytes\nVNI {packet.vni}", PALETTE[4]),
        (9.4, 11.6, "inner\nEthernet\n14 bytes", PALETTE[2]),
        (11.6, 14.8, f"inner IP\n{packet.inner_source}\n→ {packet.inner_target}", PALETTE[1]),
        (14.8, 16.8, packet.inner_protocol, PALETTE[3]),
    ]
    for left, right, text, colour in parts:
        axes.add_patch(Rectangle((left, 0), right - left, 1, facecolor=colour, alpha=0.25, edgecolor="black"))
        axes.text((left + right) / 2, 0.5, text, ha="center", va="center", fontsize=12)
    axes.annotate("from machine to machine: 50 bytes more", (4.7, 1.12), ha="center", fontsize=12)
    axes.annotate("what the pods sent", (13.1, 1.12), ha="center", fontsize=12)
    axes.set(xlim=(-0.1, 16.9), ylim=(-0.1, 1.4), title="One packet of the walk, as caught between the machines")
    axes.axis("off")
    return fig


def packet_text(packet: Packet) -> str:
    """The figure of `draw_packet` in words."""
    return (
        f"Nested boxes: outer IP {packet.outer_source} to {packet.outer_target}, UDP port {packet.outer_port}, VXLAN "
        f"{packet.vni}, and inside it IP {packet.inner_source} to {packet.inner_target}, {packet.inner_protocol}."
    )


def release_early_pods(kube: Kube, machines: Mapping[str, Host], *, timeout: float = 300.0) -> int:
    """Wait until flanneld serves every machine, and recreate DNS pods that started before; returns how many.

    flannel's manifest writes the CNI configuration, which makes the node Ready, a second before flanneld writes
    subnet.env, which the CNI plugin reads. A pod that starts in between fails, and the kubelet waits 10 s and more
    before it tries again. A new pod starts at once.

    Raises:
        WaitTimeout: flanneld does not run on one of the machines.
    """
    until(
        lambda: all(lease.public_ip for lease in leases(kube)),
        what="flannel to have a lease for every node", timeout=timeout, every=0.1,
        last=lambda: f"none yet for {', '.join(x.node for x in leases(kube) if not x.public_ip)}",
        cause=lambda: kube.explain(NAMESPACE),
    )  # fmt: skip
    for host in machines.values():
        until(
            lambda host=host: host.run(["test", "-s", SUBNET], check=False).ok,  # type: ignore[misc]
            what=f"flannel to write {SUBNET} on {host.name}", timeout=timeout, every=0.1,
            cause=lambda: kube.explain(NAMESPACE),
        )  # fmt: skip
    early = [
        p["metadata"]["name"]
        for p in kube.pods("kube-system", "k8s-app=kube-dns")
        if p["spec"].get("nodeName") and not p["status"].get("podIP")
    ]
    if early:
        kube.kubectl("delete", "pods", "-n", "kube-system", *early, "--grace-period=0", "--force", "--wait=false")
    return len(early)
