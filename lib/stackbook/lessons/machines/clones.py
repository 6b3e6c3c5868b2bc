"""The guide's snapshot copies, made on purpose: two identical machines, and how to give them their own identity."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackbook.config.profile import Node
from stackbook.core.errors import CheckFailed
from stackbook.machines import identity as machines
from stackbook.machines import operations
from stackbook.machines.operations import Operation
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

_SNAPSHOT_ID = "5ac1ab0ebadc0ffee0ddf00d5eed1234"  # the machine-id in the snapshot
_SNAPSHOT_MAC = "02:98:5a:5a:5a:5a"


def nodes(lab: Lab) -> list[Node]:
    """Two spare addresses at the end of the lab's subnet, with the snapshot's name and MAC."""
    subnet = ipaddress.ip_network(lab.profile.subnet)
    taken = {n.address for n in lab.profile.nodes} | {lab.profile.gateway}
    spare = [str(a) for a in list(subnet.hosts())[-12:] if str(a) not in taken][-2:]
    return [Node(name=f"clone-{letter}", address=a) for letter, a in zip("ab", spare, strict=True)]


def copied(lab: Lab) -> bool:
    """Whether this lab's machines can be copied: only those that stackbook created."""
    return isinstance(lab.provider, Embedded)


@contextlib.contextmanager
def pair(lab: Lab) -> Iterator[dict[str, Host]]:
    """Run two copies of one snapshot during the block: same name, MAC, machine-id, product_uuid.

    Raises:
        CheckFailed: the target is not embedded; other machines are not copied.
    """
    if not copied(lab):
        raise CheckFailed("only embedded machines can be copied", fix="use the profile embedded")
    copies = Embedded(lab.profile.model_copy(update={"nodes": tuple(nodes(lab))}))
    try:
        copies.provision(say=lambda text: lab.record.append("progress", chapter=lab.chapter.id, text=text))
        found = copies.machines()
        for host in found.values():
            host.run(["hostname", "snapshot"])
            host.run(["sh", "-c", f"echo {_SNAPSHOT_ID} > /etc/machine-id"])
            host.run(["ip", "link", "set", "eth0", "address", _SNAPSHOT_MAC])
        yield found
    finally:
        copies.remove_machines(say=lambda text: None)


def put_right(lab: Lab, found: Mapping[str, Host], step: Step) -> None:
    """Give each copy its own name, MAC, machine-id and product_uuid."""
    for node in nodes(lab):
        host = found[node.name]
        operations.apply(host, operations.together(identity(lab, node.name), mac(Embedded(lab.profile).mac(node))))
    step.note(put_right=sorted(found))


def identity(lab: Lab, name: str) -> Operation:
    """Set host name, machine-id and, on machines that see their host's, the machine's own product_uuid."""
    parts = [operations.hostname(name)]
    if lab.contained:
        parts.append(operations.machine_id(machines.own_machine_id(lab.profile.lab, name)))
        parts.append(machines.product_uuid(machines.own_uuid(lab.profile.lab, name)))
    return operations.together(*parts)


def mac(value: str, device: str = "eth0") -> Operation:
    """Give the interface this MAC address."""

    def operation(host: Host) -> Iterator[operations.Command]:
        from stackbook.machines import facts

        current = {i.name: i.mac for i in facts.INTERFACES.read(host)}
        if current.get(device) != value:
            yield operations.command("ip", "link", "set", device, "address", value)

    return operation
