"""Taking the lab away, and proving that this host is as it was before: compared, not assumed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook import facts, paths, scratch
from stackbook.cluster import CREDENTIALS
from stackbook.hosts import Host, LocalHost
from stackbook.parameters import Profile
from stackbook.providers import for_profile
from stackbook.providers.base import Say
from stackbook.step import now

# Kernel parameters of the whole host that podman, the kubelet or kube-proxy set from inside a privileged machine.
SYSCTLS = (
    "net.ipv4.ip_forward",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
_TABLES = ("filter", "nat", "mangle", "raw")


@dataclass(frozen=True)
class Difference:
    """What is there now and was not, or the other way round."""

    kind: str
    added: tuple[str, ...]
    gone: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"left over: {', '.join(self.added[:5])}"] if self.added else []
        parts += [f"missing: {', '.join(self.gone[:5])}"] if self.gone else []
        return f"{self.kind}: {'; '.join(parts)}"


def snapshot(host: Host | None = None) -> dict[str, list[str]]:
    """What of this host a lab could change, by kind, each a sorted list of lines without anything volatile."""
    host = host or LocalHost()
    return {
        "containers": _podman(host, "ps", "-a", "--format", "{{.Names}}"),
        "volumes": _podman(host, "volume", "ls", "--format", "{{.Name}}"),
        "networks": _podman(host, "network", "ls", "--format", "{{.Name}}"),
        "interfaces": sorted(i.name for i in facts.INTERFACES.read(host)),
        "routes": sorted(f"{r['dst']} {r.get('gateway', '')} {r.get('dev', '')}" for r in facts.ROUTES.read(host)),
        "namespaces": sorted(host.run(["ip", "netns", "list"], check=False).lines),
        "mounts": sorted(parse_mounts(host.read("/proc/self/mounts"))),
        "rules": sorted(rule for table in _TABLES for rule in _rules(host, table)),
        "sysctls": sorted(f"{key} = {facts.sysctl(key).read(host)}" for key in SYSCTLS),
        "cgroups": _control_groups(host),
    }


def _control_groups(host: Host) -> list[str]:
    """Those that podman's are below, in each hierarchy."""
    where = ["find", "/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-name", "*libpod*"]
    return sorted(host.run(where, check=False).lines)


def _podman(host: Host, *args: str) -> list[str]:
    answer = host.run(["podman", *args], check=False, timeout=60)
    return sorted(answer.lines) if answer.ok else []


def parse_mounts(text: str) -> list[str]:
    """Mount point and type of each mount, without those that come and go with every program (overlay of builds, nsfs).

    >>> parse_mounts("tmpfs /run tmpfs rw 0 0")
    ['/run tmpfs']
    """
    words = [line.split() for line in text.splitlines()]
    return [f"{w[1]} {w[2]}" for w in words if len(w) > 2]


def _rules(host: Host, table: str) -> list[str]:
    answer = host.run(["iptables-save", "-t", table], check=False)
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


def compare(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[Difference]:
    """The differences between two snapshots, by kind; the same lines in another number count too."""
    found = []
    for kind in before:
        old, new = list(before[kind]), list(after.get(kind, []))
        added = [x for x in new if new.count(x) > old.count(x)]
        gone = [x for x in old if old.count(x) > new.count(x)]
        if added or gone:
            found.append(Difference(kind, tuple(dict.fromkeys(added)), tuple(dict.fromkeys(gone))))
    return found


def _memory(lab: str) -> Path:
    return paths.state(lab) / "before.json"


def remember(profile: Profile) -> None:
    """Keep what this host looks like, before the lab changes it; a second call keeps the first snapshot."""
    path = _memory(profile.lab)
    if profile.target == "embedded" and not path.exists():
        path.write_text(json.dumps({"time": now(), "host": snapshot()}, indent=1), encoding="utf-8")


def before(profile: Profile) -> dict[str, list[str]] | None:
    """The snapshot of before the lab, if there is one."""
    path = _memory(profile.lab)
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dict(data["host"])


def reset(profile: Profile, *, say: Say = print, machines: bool = True) -> list[Difference]:
    """Take the lab away and compare this host with how it was; returns the differences that are left.

    On machines that are not the lab's own, `kubeadm reset` undoes what kubeadm did, and nothing else is touched.
    """
    if profile.target == "ssh" and machines:
        _reset_machines(profile, say)
    provider = for_profile(profile)
    provider.delete(say=say)
    old = before(profile)
    if old is not None:
        restore(old, LocalHost())
    differences = compare(old, snapshot()) if old is not None else []
    scratch.sweep(CREDENTIALS)
    folder = paths.state(profile.lab)
    if not differences:
        shutil.rmtree(folder, ignore_errors=True)
    return differences


def _reset_machines(profile: Profile, say: Say) -> None:
    from stackbook.kubeadm import SOCKET

    for name, host in reversed(for_profile(profile).machines().items()):
        say(f"kubeadm reset on {name}")
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], check=False, timeout=180)
        host.run(["rm", "-rf", "/etc/cni/net.d/10-flannel.conflist", "/run/flannel"], check=False)
        for device in ("cni0", "flannel.1", "flannel0"):
            host.run(["ip", "link", "delete", device], check=False)


def restore(old: Mapping[str, list[str]], host: Host) -> None:
    """Put back kernel parameters that changed; take away podman's own chains and control groups where there were none before."""
    for line in old["sysctls"]:
        key, _, value = line.partition(" = ")
        if value and facts.sysctl(key).read(host) != value:
            host.run(["sysctl", "-w", f"{key}={value}"], check=False)
    if _podman(host, "ps", "-q"):
        return  # somebody else's containers use them
    if not old["cgroups"]:
        for group in _control_groups(host):  # without processes in it the kernel lets one go, and no other
            host.run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)
    if any("NETAVARK" in rule for rule in old["rules"]):
        return
    for table in _TABLES:
        rules = [r.partition(" ")[2] for r in _rules(host, table) if "NETAVARK" in r]
        for rule in (r for r in rules if r.startswith("-A")):
            host.run(["iptables", "-t", table, "-D", *shlex.split(rule)[1:]], check=False)  # a comment has quotes
        for rule in (r for r in rules if r.startswith(":")):
            host.run(["iptables", "-t", table, "-X", rule[1:].split()[0]], check=False)


def leftovers(profile: Profile) -> list[str]:
    """What of the lab is still on this host, in words; empty after a complete reset."""
    old = before(profile)
    if old is not None:
        return [str(d) for d in compare(old, snapshot())]
    names = snapshot()
    prefix = f"{profile.lab}-"
    return [
        f"{kind}: {name}"
        for kind in ("containers", "volumes", "networks")
        for name in names[kind]
        if name.startswith(prefix)
    ]


# What chapter 99 says of the comparison; the keys are those of `snapshot`.
SCOPE: list[dict[str, str]] = [
    {"kind": "containers, volumes, networks", "as seen by": "podman"},
    {"kind": "interfaces, routes", "as seen by": "ip address, ip route"},
    {"kind": "network namespaces", "as seen by": "ip netns"},
    {"kind": "mounts", "as seen by": "/proc/self/mounts"},
    {"kind": "packet filter rules", "as seen by": "iptables-save, without counters"},
    {"kind": "kernel parameters of the whole host", "as seen by": "sysctl"},
    {"kind": "control groups", "as seen by": "/sys/fs/cgroup"},
]
