"""A machine that does not start because of one line in /etc/fstab, and how its console gets it back.

Only virtual machines have a start that can go wrong like this. SSH does not help, because it starts later than the disks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import until
from stackbook.machines.providers.vm import BOOT_SECONDS, VirtualMachines
from stackbook.machines.virtual.console import Console
from stackbook.machines.virtual.qemu import VirtualMachine, clean

if TYPE_CHECKING:
    from stackbook.config.profile import Node
    from stackbook.lab.lab import Lab

# A disk that does not exist. systemd waits 90 s for a disk, unless the line says otherwise.
LINE = "/dev/vdz /data ext4 defaults,x-systemd.device-timeout=3s 0 2"
EMERGENCY = ("You are in emergency mode", "Cannot open access to console", "Give root password")
_WHY = re.compile(
    r"Timed out waiting for device|Dependency failed for|emergency mode|Cannot open access", re.IGNORECASE
)
SHELL = "init=/bin/sh"
"""What a person adds to the kernel's options in the boot loader: the first process is a shell, and nothing else starts."""
_PROMPT = "\n# "
COMMANDS = ("sed -i '/vdz/d' /etc/fstab", "sync")
"""What is typed in that shell."""


@dataclass(frozen=True)
class Rescue:
    """What happened.

    Attributes:
        console: the lines of the console that say why the machine did not start.
        by_ssh: whether SSH answered then.
        table: /etc/fstab after the rescue.
        back: whether the machine answers by SSH again.
    """

    console: tuple[str, ...]
    by_ssh: bool
    table: str
    back: bool


def virtual(lab: Lab) -> bool:
    """Whether the lab's machines are virtual ones, which have a console."""
    return isinstance(lab.provider, VirtualMachines)


def trial(lab: Lab, node: Node) -> Rescue:
    """Break a machine's start, and rescue it from its console; at the end it runs as before, whatever happens.

    Raises:
        CheckFailed: the machines of this lab are no virtual machines.
        WaitTimeout: the machine did not get where it should, with the last lines of its console.
    """
    provider = lab.provider
    if not isinstance(provider, VirtualMachines):
        raise CheckFailed("only virtual machines have a console", fix="stackbook run --profile vm --only 01")
    template = provider.template(lab.progress)
    acceleration = provider.acceleration(template)
    machine, host = provider.machine(node, acceleration), lab.machines[node.name]
    seconds = BOOT_SECONDS[acceleration]
    host.run(["sh", "-c", 'printf "%s\\n" "$1" >> /etc/fstab', "fstab", LINE])
    shown = len(_shown(machine))
    try:
        host.run(["systemctl", "reboot"], check=False)
        until(
            lambda: any(word in _shown(machine)[shown:] for word in EMERGENCY),
            what=f"{node.name} to give up its start", timeout=seconds, last=machine.last_lines,
        )  # fmt: skip
        lines = [clean(line) for line in _shown(machine)[shown:].splitlines() if _WHY.search(line)]
        by_ssh = _answers(provider, node)
    finally:
        machine.stop(0)
        try:
            machine.start(lab.local, template, SHELL)
            with Console(machine.console) as console:
                console.wait(_PROMPT, what=f"a shell on the console of {node.name}", timeout=seconds)
                for command in COMMANDS:
                    console.type(command)
                    console.wait(_PROMPT, what=f"`{command}` on the console of {node.name}", timeout=60)
        finally:
            machine.stop(0)
            machine.start(lab.local, template)
        provider.wait_booted(node, seconds)
    table = host.run(["cat", "/etc/fstab"]).stdout
    return Rescue(tuple(lines), by_ssh, table, _answers(provider, node))


def _shown(machine: VirtualMachine) -> str:
    return machine.console_log.read_text(encoding="utf-8", errors="replace")


def _answers(provider: VirtualMachines, node: Node) -> bool:
    try:
        return provider.host_of(node).run(["true"], check=False, timeout=10).ok
    except StackbookError:
        return False
