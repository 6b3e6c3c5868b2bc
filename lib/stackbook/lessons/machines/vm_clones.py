"""Two copies of a virtual machine's disk, started as they are: each with the template's name, machine-id, MAC and address."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
from collections.abc import Iterator, Sequence

from stackbook.config.profile import Node
from stackbook.core import private
from stackbook.core.errors import StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines import facts, operations
from stackbook.machines.identity import own_uuid
from stackbook.machines.operations import Operation
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.vm import BOOT_SECONDS, VirtualMachines
from stackbook.machines.transports import Host
from stackbook.machines.virtual import disks
from stackbook.machines.virtual.agent import AgentHost
from stackbook.machines.virtual.qemu import VirtualMachine

_MEMORY = 512


@contextlib.contextmanager
def pair(provider: VirtualMachines, nodes: Sequence[Node], *, mac: str, say: Say) -> Iterator[dict[str, Host]]:
    """Run copies of the template during the block, and remove them afterwards.

    They share an address, so each is alone on a network of its own, and commands come by the guest agent.

    Args:
        provider: the lab's machines.
        nodes: the copies; all get the first one's address.
        mac: the MAC address that they share.
        say: takes one line of progress.

    Raises:
        WaitTimeout: a copy does not boot, with the last lines of its console.
    """
    template = provider.template(say)
    acceleration = provider.acceleration(template)
    prefix = ipaddress.ip_network(provider.profile.subnet).prefixlen
    seed = disks.interfaces(nodes[0].address, prefix, provider.profile.gateway)
    copies = {node.name: _machine(provider, node, mac, acceleration) for node in nodes}
    try:
        for name, machine in copies.items():
            say(f"starting {name}, a copy of the template")
            private.folder(machine.folder)
            disks.write_seed(
                machine.seed, {"etc/network/interfaces": (seed, 0o644), "root/.ssh/authorized_keys": ("", 0o600)}
            )
            disks.copy(provider.host, template, machine.disk)
            machine.start(provider.host, template)
        hosts: dict[str, Host] = {name: AgentHost(name, socket_path=machine.agent) for name, machine in copies.items()}
        for name, host in hosts.items():
            _await(host, copies[name], BOOT_SECONDS[acceleration])
        yield hosts
    finally:
        for machine in copies.values():
            machine.stop(0)
            shutil.rmtree(machine.folder, ignore_errors=True)


def _machine(provider: VirtualMachines, node: Node, mac: str, acceleration: str) -> VirtualMachine:
    profile = provider.profile
    return VirtualMachine(
        folder=provider.folder / node.name, name=f"{profile.lab}-{node.name}", mac=mac, uuid=own_uuid(profile.lab, node.name),
        memory=_MEMORY, processors=1, acceleration=acceleration,
    )  # fmt: skip


def _await(host: Host, machine: VirtualMachine, seconds: float) -> None:
    said = ""

    def booted() -> bool:
        nonlocal said
        try:
            said = host.run(["systemctl", "is-system-running"], check=False, timeout=20).stdout.strip()
        except WaitTimeout:
            said = "its agent answers, and systemd does not"
        return said in ("running", "degraded")

    until(
        booted, what=f"{host.name} to boot", timeout=seconds, every=1.0, last=lambda: said, tolerate=(StackbookError,),
        cause=lambda: f"console: {machine.last_lines()}",
    )  # fmt: skip


def address(node: Node, subnet: str, gateway: str, device: str = "eth0") -> Operation:
    """Give a copy its own address, now and after a restart."""
    prefix = ipaddress.ip_network(subnet).prefixlen
    wanted = f"{node.address}/{prefix}"

    def operation(host: Host) -> Iterator[operations.Command]:
        yield from operations.file("/etc/network/interfaces", disks.interfaces(node.address, prefix, gateway))(host)
        current = next((i.addresses for i in facts.INTERFACES.read(host) if i.name == device), ())
        if current != (wanted,):
            yield operations.command("ip", "address", "flush", "dev", device)
            yield operations.command("ip", "address", "add", wanted, "dev", device)
            yield operations.command("ip", "route", "replace", "default", "via", gateway)

    return operation
