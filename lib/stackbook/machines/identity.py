"""What distinguishes machines, and how to find two that are the same."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stackbook.machines import facts
from stackbook.machines.operations import Command, Operation, command
from stackbook.machines.transports import Host


@dataclass(frozen=True)
class Identity:
    """What must be unique for each node according to kubeadm's guide, and the machine's address."""

    machine: str
    hostname: str
    mac: str
    product_uuid: str
    machine_id: str
    address: str


def identity(name: str, host: Host) -> Identity:
    """The identity of one machine; MAC and address are those of the interface of the default route."""
    routes = facts.ROUTES.read(host)
    device = next((r["dev"] for r in routes if r.get("dst") == "default"), "")
    interfaces = {i.name: i for i in facts.INTERFACES.read(host)}
    chosen = interfaces.get(device)
    return Identity(
        machine=name,
        hostname=facts.HOSTNAME.read(host),
        mac=chosen.mac if chosen else "",
        product_uuid=facts.PRODUCT_UUID.read(host),
        machine_id=facts.MACHINE_ID.read(host),
        address=chosen.addresses[0] if chosen and chosen.addresses else "",
    )


def identities(machines: Mapping[str, Host]) -> list[Identity]:
    """The identity of each machine."""
    return [identity(name, host) for name, host in machines.items()]


def twins(found: Sequence[Identity]) -> list[str]:
    """What machines share, one sentence for each value; missing values do not count.

    >>> a = Identity("a", "n", "m1", "", "i1", "10.0.0.1/24"); b = Identity("b", "n", "m2", "", "i2", "10.0.0.2/24")
    >>> twins([a, b])
    ["a and b share the hostname 'n'"]
    """
    problems = []
    for what in ("hostname", "mac", "product_uuid", "machine_id", "address"):
        values = Counter(getattr(i, what) for i in found if getattr(i, what))
        for value, count in values.items():
            if count > 1:
                names = " and ".join(i.machine for i in found if getattr(i, what) == value)
                problems.append(f"{names} share the {what} {value!r}")
    return problems


def own_uuid(lab: str, name: str) -> str:
    """A product_uuid for a machine without its own: always the same for one lab and name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{lab}.stackbook"))


def own_mac(address: str) -> str:
    """A locally administered MAC address, made from an IPv4 address.

    >>> own_mac("192.168.98.3")
    '02:98:c0:a8:62:03'
    """
    return "02:98:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def own_machine_id(lab: str, name: str) -> str:
    """A machine-id (32 hexadecimal digits), always the same for one lab and name."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"machine-id.{name}.{lab}.stackbook").hex


def product_uuid(value: str) -> Operation:
    """Set the product_uuid that the machine shows. A container sees its host's, so a file is mounted over it.

    A systemd unit repeats this at every start of the machine.
    """
    unit = f"""\
[Unit]
Description=Own product_uuid, as the host's would be shared by every machine on it
DefaultDependencies=no
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo {value} > /run/product_uuid && mount --bind /run/product_uuid /sys/class/dmi/id/product_uuid'

[Install]
WantedBy=multi-user.target
"""

    def operation(host: Host) -> Iterator[Command]:
        if not host.run(["test", "-e", "/sys/class/dmi/id/product_uuid"], check=False).ok:
            return
        if facts.PRODUCT_UUID.read(host) != value:
            yield Command(path="/etc/systemd/system/product-uuid.service", text=unit)
            yield command("systemctl", "daemon-reload")
            yield command("systemctl", "enable", "product-uuid")
            yield command("systemctl", "restart", "product-uuid")

    return operation
