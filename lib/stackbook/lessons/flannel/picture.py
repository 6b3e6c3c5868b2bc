"""A picture of the pod network: the addresses on each machine, and the way from one to the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw
from stackbook.cluster import flannel

if TYPE_CHECKING:
    from stackbook.cluster.flannel import Lease
    from stackbook.cluster.kube import Kube
    from stackbook.machines.transports import Host

BRIDGE, TUNNEL = "cni0", "flannel.1"
_WORDS = {
    "vxlan": "VXLAN, UDP port 8472",
    "host-gw": "as they are, by a route",
    "wireguard": "encrypted, UDP port 51820",
}
"""How each backend of flannel sends packets from machine to machine."""


def network(kube: Kube, machines: Mapping[str, Host]) -> Picture:
    """The pods, devices and addresses of each machine, read on the machine, and flannel's way between them."""
    leases = {lease.node: lease for lease in flannel.leases(kube)}
    pods = kube.json("get", "pods", "-A")["items"]
    boxes, arrows = [], []
    for name, host in machines.items():
        mine = sorted({_short(str(pod["metadata"]["name"])): str(pod["status"].get("podIP", "")) for pod in pods
                       if pod["spec"].get("nodeName") == name and not pod["spec"].get("hostNetwork")}.items())  # fmt: skip
        rows = _rows(name, leases[name], addresses(host), mine)
        boxes.append(Box(name, (f"pods: {leases[name].subnet}",), rows=rows))
        arrows += [Arrow(one[0].key, other[0].key, both=True) for one, other in pairwise(rows)]
    names = list(machines)
    way = _WORDS.get(leases[names[0]].backend, leases[names[0]].backend)
    arrows += [Arrow(f"the machine's device on {names[0]}", f"the machine's device on {other}", way, colour=1, both=True)
               for other in names[1:]]  # fmt: skip
    return draw([[box] for box in boxes], arrows, title="The way of a packet from a pod to a pod on another machine")


def _rows(
    name: str, lease: Lease, devices: Mapping[str, str], pods: Sequence[tuple[str, str]]
) -> tuple[tuple[Box, ...], ...]:  # fmt: skip
    own = next((device for device, address in devices.items() if address == lease.public_ip), "the machine's device")
    rows = [tuple(Box(pod, (address,), name=f"{pod} on {name}", colour=2) for pod, address in pods[:2])] if pods else []
    rows += [(Box(device, (f"{words}, {devices[device]}",), name=f"{device} on {name}", colour=0),)
             for device, words in ((BRIDGE, "the bridge of the pods"), (TUNNEL, "the end of the tunnel")) if device in devices]  # fmt: skip
    rows.append(
        (Box(own, (f"the machine's network, {lease.public_ip}",), name=f"the machine's device on {name}", colour=1),)
    )
    return tuple(rows)


def addresses(host: Host) -> dict[str, str]:
    """The first IPv4 address of each device of a machine that has one."""
    found = json.loads(host.run(["ip", "-j", "-4", "address"]).stdout)
    return {str(device["ifname"]): str(device["addr_info"][0]["local"]) for device in found if device.get("addr_info")}


def _short(name: str) -> str:
    """A pod's name without the part that is different at each start.

    >>> _short("coredns-5c6458f85f-v7g68"), _short("kafka-0")
    ('coredns', 'kafka-0')
    """
    parts = name.split("-")
    return "-".join(parts[:-2]) if len(parts) > 2 and len(parts[-1]) == 5 else name
