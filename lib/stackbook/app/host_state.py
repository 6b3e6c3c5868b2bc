"""What a lab can change on this host: a snapshot of it, and the differences between two snapshots."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from stackbook.core.errors import CommandFailed, StackbookError
from stackbook.machines import facts
from stackbook.machines.transports import Host, LocalHost

Lines = list[str] | str
"""The state of one kind; a text instead of a list says why it could not be read."""
Snapshot = dict[str, Lines]

# Host-wide kernel parameters that podman, the kubelet or kube-proxy set from inside a privileged machine.
SYSCTLS = (
    "net.ipv4.ip_forward",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
TABLES = ("filter", "nat", "mangle", "raw")


@dataclass(frozen=True)
class Difference:
    """What was added and what is gone; `unread` says why that is not known."""

    kind: str
    added: tuple[str, ...]
    gone: tuple[str, ...]
    unread: str = ""

    def __str__(self) -> str:
        if self.unread:
            return f"{self.kind}: could not be compared: {self.unread}"
        parts = [f"left over: {', '.join(self.added[:5])}"] if self.added else []
        parts += [f"missing: {', '.join(self.gone[:5])}"] if self.gone else []
        return f"{self.kind}: {'; '.join(parts)}"


def snapshot(host: Host | None = None) -> Snapshot:
    """What a lab can change on this host, by kind, each as a sorted list of lines without volatile parts."""
    here = host or LocalHost()
    return {
        "containers": _read(lambda: _podman(here, "ps", "-a", "--format", "{{.Names}}")),
        "volumes": _read(lambda: _podman(here, "volume", "ls", "--format", "{{.Name}}")),
        "networks": _read(lambda: _podman(here, "network", "ls", "--format", "{{.Name}}")),
        "interfaces": _read(lambda: (i.name for i in facts.INTERFACES.read(here))),
        "routes": _read(
            lambda: (f"{r['dst']} {r.get('gateway', '')} {r.get('dev', '')}" for r in facts.ROUTES.read(here))
        ),
        "namespaces": _read(lambda: plain_names(here.run(["ip", "netns", "list"]).lines)),
        "mounts": _read(lambda: parse_mounts(here.read("/proc/self/mounts"))),
        "rules": _read(lambda: (rule for table in TABLES for rule in rules(here, table))),
        "sysctls": _read(lambda: (f"{key} = {facts.sysctl(key).read(here)}" for key in SYSCTLS)),
        "cgroups": _read(lambda: control_groups(here)),
    }


def _read(lines: Callable[[], Iterable[str]]) -> Lines:
    """A sorted list, or the reason if a program is missing or fails: an empty list would look like an empty host."""
    try:
        return sorted(lines())
    except StackbookError as error:
        return " ".join(error.message.split())


def plain_names(lines: Iterable[str]) -> list[str]:
    """The names that `ip netns list` prints, without the numbers that the kernel gives them.

    >>> plain_names(["blue (id: 0)", "red"])
    ['blue', 'red']
    """
    return [line.split()[0] for line in lines if line.split()]


def control_groups(host: Host) -> list[str]:
    """The control groups that contain podman's, in each hierarchy."""
    where = ["find", "/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-name", "*libpod*"]
    return sorted(host.run(where, check=False).lines)


def _podman(host: Host, *args: str) -> list[str]:
    return host.run(["podman", *args], timeout=60).lines


def parse_mounts(text: str) -> list[str]:
    """Mount point and type of each mount, without short-lived ones (overlays of builds, nsfs).

    >>> parse_mounts("tmpfs /run tmpfs rw 0 0")
    ['/run tmpfs']
    """
    words = [line.split() for line in text.splitlines()]
    return [f"{w[1]} {w[2]}" for w in words if len(w) > 2]


def rules(host: Host, table: str) -> list[str]:
    """The chains and rules of a table; none if the kernel lacks the table."""
    answer = host.run(["iptables-save", "-t", table], check=False)
    if not answer.ok and "does not exist" not in answer.stderr:
        raise CommandFailed(answer)
    return parse_rules(answer.stdout, table)


def parse_rules(text: str, table: str) -> list[str]:
    r"""The chains and rules in iptables-save's output, without packet counters and without the kernel's own chains.

    >>> parse_rules("*nat\\n:OUTPUT ACCEPT [3:180]\\n:MINE - [0:0]\\n-A OUTPUT -j MINE\\nCOMMIT", "nat")
    ['nat :MINE -', 'nat -A OUTPUT -j MINE']
    """
    found = []
    for line in text.splitlines():
        plain = re.sub(r"\[\d+:\d+\]", "", line).strip()
        own_chain = plain.startswith(":") and not re.match(
            r":(INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) ACCEPT", plain
        )
        if plain.startswith("-A") or own_chain:
            found.append(f"{table} {plain}")
    return found


def compare(before: Mapping[str, Lines], after: Mapping[str, Lines]) -> list[Difference]:
    """The differences between two snapshots, by kind; a different number of equal lines counts, too."""
    found = []
    for kind, old in before.items():
        new = after.get(kind, "it was not read")
        if isinstance(old, str) or isinstance(new, str):
            found.append(Difference(kind, (), (), unread=new if isinstance(new, str) else f"before the lab, {old}"))
            continue
        added = [x for x in new if new.count(x) > old.count(x)]
        gone = [x for x in old if old.count(x) > new.count(x)]
        if added or gone:
            found.append(Difference(kind, tuple(dict.fromkeys(added)), tuple(dict.fromkeys(gone))))
    return found
