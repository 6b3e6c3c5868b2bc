"""Can this host run the lab? Each requirement says what was found, and the exact fix."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stackbook.app import cluster_access
from stackbook.app.kernel_probes import kernel
from stackbook.app.requirement import Requirement
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import HostUnfit
from stackbook.machines import facts
from stackbook.machines.providers.vm import VirtualMachines
from stackbook.machines.transports import LocalHost

GIB = 1 << 30
# Measured on the default lab: 2.3 GiB with everything; each further node takes about 0.35 GiB, without its pods.
MEMORY_BASE, MEMORY_PER_NODE = 2.2 * GIB, 0.4 * GIB
MEMORY_PER_VM = 0.2 * GIB
"""What QEMU itself takes for a machine, above the memory that the machine sees."""
DISK_NEEDED = 12 * GIB
# Measured: systemd, containerd, kubelet and kube-proxy hold 13 of root's on each machine, the control plane 14 more. While chapter 01
# builds a lab, the two copies of a machine hold 14, but no machine's kubelet runs yet. The kernel's default limit is 128 per user.
INOTIFY_BASE, INOTIFY_PER_NODE = 16, 14
PODMAN = 4
"""The minimum major version of podman: earlier ones describe networks and containers differently."""
NFTABLES = 5
"""From this major version on, podman's network stack uses nftables."""


# program → Debian's package
_TOOLS = {"podman": "podman", "runc": "runc", "iptables": "iptables", "ip": "iproute2", "curl": "curl"}
_VM_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mkfs.ext4": "e2fsprogs", "ssh": "openssh-client",
    "iptables": "iptables", "ip": "iproute2", "curl": "curl",
}  # fmt: skip


def examine(profile: Profile, numbers: Sequence[str] = cluster_access.CHAPTERS) -> list[Requirement]:
    """Check every requirement of the profile's target on this host; every probe is undone.

    Args:
        profile: the profile.
        numbers: of the chapters that run on an existing cluster; what they need there is asked for.
    """
    if profile.target == "ssh":
        return [_tool("ssh", "openssh-client")]
    if profile.target == "cluster":
        return cluster_access.examine(profile, numbers)
    host = LocalHost()
    if profile.target == "vm":
        return _of_virtual_machines(host, profile)
    found = [_root(), _system(host), _memory(host, profile), _disk(), _cores(), *_tools(_TOOLS)]
    if all(r.met for r in found if r.level == "must"):
        found += [_podman(host), *kernel(host), _subnet(host, profile), _inotify(host, profile)]
    return found


def unmet(profile: Profile, numbers: Sequence[str] = cluster_access.CHAPTERS) -> list[Requirement]:
    """The `must` requirements that are not met."""
    return [r for r in examine(profile, numbers) if r.level == "must" and not r.met]


def demand(profile: Profile, numbers: Sequence[str] = cluster_access.CHAPTERS) -> None:
    """Refuse a host that cannot run the lab.

    Raises:
        HostUnfit: a requirement is not met; the error names the first one, with its fix.
    """
    problems = unmet(profile, numbers)
    if problems:
        more = f" (and {len(problems) - 1} more: stackbook run --only 00)" if len(problems) > 1 else ""
        raise HostUnfit(f"{problems[0].name}: {problems[0].found}{more}", fix=problems[0].fix)


def _of_virtual_machines(host: LocalHost, profile: Profile) -> list[Requirement]:
    """What a host needs for machines under QEMU: none of the kernel's features that containers need."""
    found = [_root(), _system(host), _memory(host, profile), _disk(), _cores(), *_tools(_VM_TOOLS)]
    tun = os.access("/dev/net/tun", os.R_OK | os.W_OK)
    fix = "" if tun else "modprobe tun"
    found.append(
        Requirement(
            "tap devices", "must", tun, "/dev/net/tun" if tun else "no /dev/net/tun", fix, "the machines' links"
        )
    )
    return [*found, _subnet(host, profile)]


def _root() -> Requirement:
    uid = os.geteuid()
    return Requirement(
        "root",
        "must",
        uid == 0,
        "root" if uid == 0 else f"user id {uid}",
        "" if uid == 0 else "run as root, or install sudo and allow this user to use it",
        "machines, bridges and mounts belong to root",
    )


def _system(host: LocalHost) -> Requirement:
    release = facts.OS_RELEASE.read(host)
    machine = os.uname()
    good = machine.sysname == "Linux" and machine.machine == "x86_64"
    text = f"{release.get('PRETTY_NAME', 'Linux')}, kernel {machine.release}, {machine.machine}"
    return Requirement(
        "system", "must", good, text, "" if good else "use a 64-bit x86 Linux host", "the components are built for it"
    )


def _memory(host: LocalHost, profile: Profile) -> Requirement:
    needed = _memory_needed(profile)
    free = facts.MEMORY.read(host)["MemAvailable"] + _lab_uses(profile)
    return Requirement(
        "memory",
        "must",
        free >= needed,
        f"{free / GIB:.1f} GiB available",
        "" if free >= needed else f"free or add memory: {len(profile.nodes)} nodes need {needed / GIB:.1f} GiB",
        f"{len(profile.nodes)} nodes, the mesh and bookinfo need {needed / GIB:.1f} GiB",
    )


def _lab_uses(profile: Profile) -> float:
    """The memory that a running lab uses already: it counts as available."""
    marker = paths.state(profile.lab) / "instance"
    return _memory_needed(profile) if marker.exists() else 0


def _memory_needed(profile: Profile) -> float:
    if profile.target == "vm":
        return len(profile.nodes) * ((profile.vm_memory << 20) + MEMORY_PER_VM)
    return MEMORY_BASE + MEMORY_PER_NODE * len(profile.nodes)


def _disk() -> Requirement:
    folder = paths.cache()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    have = (
        sum(f.stat().st_size for f in (paths.cache() / "blobs").rglob("*") if f.is_file())
        if paths.cache().exists()
        else 0
    )
    good = free + have >= DISK_NEEDED
    return Requirement(
        "disk",
        "must",
        good,
        f"{free / GIB:.0f} GiB free for the cache",
        "" if good else f"free {DISK_NEEDED / GIB:.0f} GiB, or set STACKBOOK_CACHE to a larger disk",
        "components, images and machines",
    )


def _cores() -> Requirement:
    count = os.cpu_count() or 1
    return Requirement(
        "processors",
        "must",
        count >= 2,
        str(count),
        "" if count >= 2 else "give the host 2 processors",
        "kubeadm requires two",
    )


def _tool(name: str, package: str) -> Requirement:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Requirement(
        name,
        "must",
        bool(path),
        path or "not installed",
        "" if path else f"apt-get install {package}",
        f"package {package}",
    )


def _tools(packages: Mapping[str, str]) -> Iterator[Requirement]:
    for name, package in packages.items():
        yield _tool(name, package)


def _podman(host: LocalHost) -> Requirement:
    answer = host.run(["podman", "info", "--format", "{{.Version.Version}}"], check=False, timeout=60)
    found = answer.stdout.strip() if answer.ok else (answer.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    fix = "" if answer.ok else "run `podman info` and correct what it reports"
    version = re.match(r"\d+", found)
    if answer.ok and version and int(version[0]) < PODMAN:
        found = f"podman {found}, which prints different JSON and has no netavark"
        fix = f"use Debian 12 or Ubuntu 24.04, or install podman {PODMAN} or newer"
    elif answer.ok and version and int(version[0]) >= NFTABLES and not shutil.which("nft"):
        found, fix = f"podman {found}, whose netavark needs nft, which is not installed", "apt-get install nftables"
    return Requirement("podman works", "must", not fix, found, fix, "it runs the machines")


def _subnet(host: LocalHost, profile: Profile) -> Requirement:
    wanted = ipaddress.ip_network(profile.subnet)
    ours = _own_bridge(host, profile)
    for interface in facts.INTERFACES.read(host):
        for address in interface.addresses:
            if interface.name != ours and ipaddress.ip_interface(address).network.overlaps(wanted):
                return Requirement(
                    "subnet",
                    "must",
                    False,
                    f"{interface.name} has {address}, inside {wanted}",
                    "choose another subnet, gateway and node addresses in the profile",
                )
    for route in facts.ROUTES.read(host):
        if "/" in route["dst"] and route.get("dev") != ours and ipaddress.ip_network(route["dst"]).overlaps(wanted):
            return Requirement(
                "subnet",
                "must",
                False,
                f"the route to {route['dst']} by {route.get('dev')} overlaps",
                "choose another subnet, gateway and node addresses in the profile",
            )
    return Requirement("subnet", "must", True, f"{wanted} is free", "", "the machines' own network")


def _own_bridge(host: LocalHost, profile: Profile) -> str:
    if profile.target == "vm":
        return VirtualMachines(profile, host).network.bridge
    answer = host.run(["podman", "network", "inspect", f"{profile.lab}-net"], check=False)
    if not answer.ok:
        return ""
    entry = json.loads(answer.stdout)[0]
    labels = entry.get("labels") or {}
    return str(entry.get("network_interface", "")) if labels.get("stackbook.lab") == profile.lab else ""


def inotify_needed(nodes: int) -> int:
    """The number of root's inotify instances that a lab with this many machines needs. Those of the proxies are another user's."""
    return INOTIFY_BASE + INOTIFY_PER_NODE * nodes


def inotify_in_use() -> int:
    """How many inotify instances root's processes have, including those of other labs' machines."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if process.stat().st_uid == 0:
                found += sum(str(file.readlink()) == "anon_inode:inotify" for file in (process / "fd").iterdir())
    return found


def inotify(nodes: int, *, limit: int, used: int) -> Requirement:
    """Whether there are enough inotify instances for this many more machines; systemd and kubelets do not start without them."""
    needed = inotify_needed(nodes)
    met = used + needed <= limit
    return Requirement(
        "inotify instances",
        "must",
        met,
        str(limit) if met else f"{limit} per user, {used} of them in use, {needed} needed",
        "" if met else f"sysctl -w fs.inotify.max_user_instances={2 * (used + needed)}",
        f"{nodes} machines hold about {needed}",
    )


def _inotify(host: LocalHost, profile: Profile) -> Requirement:
    limit = int(facts.sysctl("fs.inotify.max_user_instances").read(host) or 0)
    standing = (paths.state(profile.lab) / "instance").exists()  # if so, its own are among those in use
    return inotify(len(profile.nodes), limit=limit, used=0 if standing else inotify_in_use())
