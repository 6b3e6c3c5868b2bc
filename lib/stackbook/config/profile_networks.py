"""The networks of a profile: machines, pods and services must be reachable beside each other."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackbook.config.profile import Profile


def check_networks(profile: Profile) -> None:
    """Check that the networks of a profile do not overlap, have a size that kubeadm accepts, and fit the nodes' addresses.

    Raises:
        ValueError: they do not; the message names the field and what to change.
    """
    named = {"pod_cidr": profile.pod_cidr, "service_cidr": profile.service_cidr}
    if profile.creates_machines:
        named["subnet"] = profile.subnet
    networks = [(name, ipaddress.ip_network(text)) for name, text in named.items()]
    for index, (name, network) in enumerate(networks):
        for other, second in networks[index + 1 :]:
            if network.overlaps(second):
                raise ValueError(f"{name} {network} and {other} {second} overlap: change one of them")
    if ipaddress.ip_network(profile.service_cidr).prefixlen < 12:
        raise ValueError(f"service_cidr {profile.service_cidr} is too large: kubeadm accepts at most a /12")
    if ipaddress.ip_network(profile.pod_cidr).prefixlen > 24 - (len(profile.nodes) - 1).bit_length():
        raise ValueError(f"pod_cidr {profile.pod_cidr} is too small: each node needs a /24 of it")
    for node in profile.nodes:
        for name, network in networks:
            if name != "subnet" and ipaddress.ip_address(node.address) in network:
                raise ValueError(
                    f"{name}: node {node.name} has {node.address}, which lies in {network} and could not "
                    "be reached: choose another range"
                )
    if not profile.creates_machines:
        return
    subnet = ipaddress.ip_network(profile.subnet)
    for what, address in [("gateway", profile.gateway), *((f"node {n.name}", n.address) for n in profile.nodes)]:
        if ipaddress.ip_address(address) not in subnet:
            raise ValueError(f"{what}: {address} is outside the subnet {subnet}")
        if address in (str(subnet.network_address), str(subnet.broadcast_address)):
            raise ValueError(f"{what}: {address} is the network or broadcast address of {subnet}: choose another")
        if what != "gateway" and address == profile.gateway:
            raise ValueError(f"{what}: {address} is already the gateway's address")
