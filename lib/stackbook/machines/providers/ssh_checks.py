"""What a machine reached by SSH must be, checked before anything on it is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stackbook.core.errors import InputError, TransportError
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.transports import Host

SYSTEMS = ("debian", "ubuntu")
ARCHITECTURE = "x86_64"
_SUDO = "let the user use sudo without a password (NOPASSWD in sudoers), or set user: root"

# What ssh(1) prints where waiting does not help, and what does.
_REFUSALS = (
    (r"permission denied", "the machine does not accept the key: set key: of the node, or add the key to authorized_keys"),
    (r"no matching host key|host key verification failed|identification has changed",
     "the machine's host key is not the expected one: check it, then correct the known_hosts file"),
    (r"could not resolve hostname", "correct the name of the machine or of its jump host"),
    (r"identity file .* not accessible|no such identity", "correct key: of the node"),
    (r"bad configuration option|unprotected private key", "correct the key's permissions: chmod 600"),
)  # fmt: skip


def demand(host: Host, *, timeout: float = 60, every: float = 2) -> None:
    """Wait until a machine answers, and refuse one that cannot be used.

    Args:
        host: the machine.
        timeout: seconds for the first answer. A refusal is not waited for.
        every: seconds between two tries.

    Raises:
        InputError: the key, the host key, sudo, the system or the architecture is wrong.
        WaitTimeout: no answer, with what ssh said.
    """
    said = ""

    def answers() -> bool:
        nonlocal said
        try:
            answer = host.run(["true"], check=False, timeout=15)
        except TransportError as error:
            said = error.message
            if fix := _refused(said):
                raise InputError(said, fix=fix) from None
            return False
        if not answer.ok:
            reason = (answer.stderr.strip().splitlines() or [f"status {answer.rc}"])[-1]
            raise InputError(f"{host.name}: no command can be run as root: {reason}", fix=_SUDO)
        return True

    until(answers, what=f"{host.name} to answer by SSH", timeout=timeout, every=every, last=lambda: said)
    machine = host.run(["uname", "-m"], timeout=15).stdout.strip()
    if machine != ARCHITECTURE:
        raise InputError(f"{host.name} is a {machine} machine", fix=f"use {ARCHITECTURE} machines")
    system = facts.OS_RELEASE.read(host)
    if system.get("ID", "") not in SYSTEMS:
        raise InputError(
            f"{host.name} runs {system.get('PRETTY_NAME', 'an unknown system')}",
            fix="use Debian 12, Debian 13 or Ubuntu 24.04",
        )


def demand_different(machines: Mapping[str, Host]) -> None:
    """Refuse two nodes that are one machine.

    Raises:
        InputError: they booted at the same moment with the same identifier.
    """
    seen: dict[str, str] = {}
    for name, host in machines.items():
        boot = host.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout=15).stdout.strip()
        boot += host.run(
            ["stat", "-c", "%i", "/proc/1/ns/mnt"], timeout=15
        ).stdout.strip()  # containers share the kernel's
        if boot in seen:
            raise InputError(f"{seen[boot]} and {name} are the same machine", fix="correct an address in the profile")
        seen[boot] = name


def _refused(said: str) -> str:
    return next((fix for pattern, fix in _REFUSALS if re.search(pattern, said, re.IGNORECASE)), "")
