"""The guide's snapshot copies, made on purpose: two identical machines, and how to give them their own identity."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stackbook.config.profile import Node
from stackbook.core.errors import CheckFailed
from stackbook.lessons.machines import vm_clones
from stackbook.machines import identity as machines
from stackbook.machines import operations
from stackbook.machines.operations import Operation
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.providers.vm import VirtualMachines
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
    return lab.profile.creates_machines


@contextlib.contextmanager
def pair(lab: Lab) -> Iterator[dict[str, Host]]:
    """Run two copies of one snapshot during the block: same name, MAC, machine-id, and where they share it product_uuid.

    Raises:
        CheckFailed: stackbook did not create the machines; others are not copied.
    """

    def say(text: str) -> None:
        lab.record.append("progress", chapter=lab.chapter.id, text=text)

    if not copied(lab):
        raise CheckFailed("only machines that stackbook created can be copied", fix="use the profile embedded")
    if isinstance(lab.provider, VirtualMachines):
        with vm_clones.pair(lab.provider, nodes(lab), mac=_SNAPSHOT_MAC, say=say) as copies_of_disks:
            yield copies_of_disks
        return
    copies = Embedded(lab.profile.model_copy(update={"nodes": tuple(nodes(lab))}))
    try:
        copies.provision(say=say)
        found = copies.machines()
        for host in found.values():
            host.run(["hostname", "snapshot"])
            host.run(["sh", "-c", f"echo {_SNAPSHOT_ID} > /etc/machine-id"])
            host.run(["ip", "link", "set", "eth0", "address", _SNAPSHOT_MAC])
        yield found
    finally:
        copies.remove_machines(say=lambda text: None)


def put_right(lab: Lab, found: Mapping[str, Host], step: Step) -> None:
    """Give each copy its own name, MAC, machine-id and, where they have the snapshot's, product_uuid and address."""
    for node in nodes(lab):
        host = found[node.name]
        operations.apply(host, operations.together(identity(lab, node.name), mac(machines.own_mac(node.address))))
        if isinstance(lab.provider, VirtualMachines):
            operations.apply(host, vm_clones.address(node, lab.profile.subnet, lab.profile.gateway))
    step.note(put_right=sorted(found))


def identity(lab: Lab, name: str) -> Operation:
    """Set host name, on copies the machine-id and, on machines that see their host's, the machine's own product_uuid."""
    parts = [operations.hostname(name)]
    if copied(lab):
        parts.append(operations.machine_id(machines.own_machine_id(lab.profile.lab, name)))
    if lab.contained:
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
