"""An Operation changes a machine: it reads facts and yields only the commands that are still needed.

A second run yields none. `apply` runs them; `pending` lists them and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.machines import facts
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.step import Step


@dataclass(frozen=True)
class Command:
    """One change: a command, or a file to write (`path` with `text`)."""

    argv: tuple[str, ...] = ()
    path: str = ""
    text: str = ""
    mode: int = 0o644
    stdin: str | None = None
    timeout: float = 120.0

    def __str__(self) -> str:
        return f"write {self.path}" if self.path else " ".join(self.argv)


Operation = Callable[[Host], Iterator[Command]]


def command(*argv: str, stdin: str | None = None, timeout: float = 120.0) -> Command:
    """A command; `timeout` in seconds."""
    return Command(argv=argv, stdin=stdin, timeout=timeout)


def pending(host: Host, operation: Operation) -> list[Command]:
    """The commands that are still needed; changes nothing."""
    return list(operation(host))


def apply(host: Host, operation: Operation, *, step: Step | None = None) -> list[Command]:
    """Run the commands that are still needed, in order, and count them as changes of the step.

    Raises:
        CommandFailed: a command failed; those before it have run.
    """
    done = []
    for item in operation(host):
        if item.path:
            host.write(item.path, item.text, mode=item.mode)
        else:
            host.run(item.argv, stdin=item.stdin, timeout=item.timeout)
        done.append(item)
        if step:
            step.changed += 1
    return done


def file(path: str, text: str, *, mode: int = 0o644) -> Operation:
    """Give a file exactly this text."""

    def operation(host: Host) -> Iterator[Command]:
        if facts.text_file(path).read(host) != text:
            yield Command(path=path, text=text, mode=mode)

    return operation


def hostname(name: str) -> Operation:
    """Set the machine's host name, now and after a restart."""

    def operation(host: Host) -> Iterator[Command]:
        if facts.text_file("/etc/hostname").read(host).strip() != name:
            # Written in place: in a container this file is a mount, and a mount cannot be replaced by `mv`.
            yield command("sh", "-c", 'printf "%s\\n" "$1" > /etc/hostname', "hostname", name)
        if facts.HOSTNAME.read(host) != name:
            yield command("hostname", name)

    return operation


def hosts_table(names: Mapping[str, str]) -> Operation:
    """Add these names to /etc/hosts (name → address); other lines stay."""

    def operation(host: Host) -> Iterator[Command]:
        known = facts.HOSTS.read(host)
        if any(known.get(name) != address for name, address in names.items()):
            kept = [
                line
                for line in facts.text_file("/etc/hosts").read(host).splitlines()
                if not set(line.split("#")[0].split()[1:]) & set(names)
            ]
            text = "\n".join([*kept, *(f"{address} {name}" for name, address in names.items())]) + "\n"
            yield command("sh", "-c", "cat > /etc/hosts", stdin=text)

    return operation


def packages(names: Sequence[str], *, unless: Mapping[str, str] | None = None) -> Operation:
    """Install Debian packages.

    Args:
        names: names of the packages.
        unless: package → program: if the machine already has the program, the package is not installed.
    """

    def operation(host: Host) -> Iterator[Command]:
        query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names]
        lines = [line.split() for line in host.run(query, check=False).lines]
        there = {line[0] for line in lines if line[1:] == ["installed"]}
        missing = [name for name in names if name not in there]
        found = [
            name for name in missing if name in (unless or {}) and facts.executable((unless or {})[name]).read(host)
        ]
        if wanted := [name for name in missing if name not in found]:
            yield command("apt-get", "update", "-qq")
            yield command(
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
                *wanted,
            )

    return operation


def sysctls(values: Mapping[str, str], *, path: str = "/etc/sysctl.d/k8s.conf") -> Operation:
    """Set kernel parameters, now and after a restart; skips those that this kernel does not have."""

    def operation(host: Host) -> Iterator[Command]:
        present = {key: value for key, value in values.items() if facts.sysctl(key).read(host) != ""}
        yield from file(path, "".join(f"{key} = {value}\n" for key, value in present.items()))(host)
        for key, value in present.items():
            if facts.sysctl(key).read(host) != value:
                yield command("sysctl", "-w", f"{key}={value}")

    return operation


def modules(names: Sequence[str], *, path: str = "/etc/modules-load.d/k8s.conf") -> Operation:
    """Load kernel modules, now and at every start, unless the kernel has them built in or cannot load them."""

    def operation(host: Host) -> Iterator[Command]:
        yield from file(path, "".join(f"{name}\n" for name in names))(host)
        loaded = {line.split()[0] for line in facts.text_file("/proc/modules").read(host).splitlines() if line.split()}
        for name in names:
            if name in loaded or host.run(["test", "-d", f"/sys/module/{name}"], check=False).ok:
                continue
            if host.run(["modprobe", "-n", name], check=False).ok:
                yield command("modprobe", name)

    return operation


def swap_off() -> Operation:
    """Disable swap, now and after a restart: runs swapoff, and comments out the swap lines in /etc/fstab."""

    def operation(host: Host) -> Iterator[Command]:
        table = facts.text_file("/etc/fstab").read(host)
        commented = comment_swap(table)
        if commented != table:
            yield Command(path="/etc/fstab", text=commented)
        if facts.SWAP.read(host):
            yield command("swapoff", "-a")

    return operation


def comment_swap(table: str) -> str:
    r"""An fstab with only its swap lines commented out.

    >>> comment_swap("/swapfile none swap sw 0 0\\n/dev/sda1 / ext4 defaults 0 1\\n")
    '#/swapfile none swap sw 0 0\\n/dev/sda1 / ext4 defaults 0 1\\n'
    """
    return re.sub(r"^(?=[^#\s]\S*\s+\S+\s+swap\s)", "#", table, flags=re.MULTILINE)


def unit(name: str, *, active: bool = True, enabled: bool = True) -> Operation:
    """Start or stop a systemd unit, and enable or disable it."""

    def operation(host: Host) -> Iterator[Command]:
        state, at_boot = facts.unit_state(name).read(host)
        if (at_boot == "enabled") != enabled and at_boot not in ("static", "indirect", "generated"):
            yield command("systemctl", "enable" if enabled else "disable", name)
        if (state == "active") != active:
            yield command("systemctl", "start" if active else "stop", name)

    return operation


def machine_id(value: str) -> Operation:
    """Set /etc/machine-id to this value (32 hexadecimal digits)."""

    def operation(host: Host) -> Iterator[Command]:
        if facts.MACHINE_ID.read(host) != value:
            yield command("sh", "-c", 'printf "%s\\n" "$1" > /etc/machine-id', "machine-id", value)

    return operation


def together(*operations: Operation) -> Operation:
    """Several operations as one, in order."""

    def operation(host: Host) -> Iterator[Command]:
        for one in operations:
            yield from one(host)

    return operation
