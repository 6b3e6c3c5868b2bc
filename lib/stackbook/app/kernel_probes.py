"""What this host's kernel offers, tested in a temporary network namespace and on a temporary mount; every probe is undone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stackbook.app.requirement import Requirement
from stackbook.machines import facts
from stackbook.machines.transports import LocalHost

_PROBE = "stackbook-probe-"  # network namespaces of the probes, named after their process


def kernel(host: LocalHost) -> Iterator[Requirement]:
    """What the kernel offers, tested in a temporary network namespace and on a temporary mount."""
    space = f"{_PROBE}{os.getpid()}"
    try:
        sweep_probes(host)
        made = host.run(["ip", "netns", "add", space], check=False)
        yield Requirement(
            "network namespaces",
            "must",
            made.ok,
            "yes" if made.ok else made.stderr.strip()[:160],
            "" if made.ok else "use a host whose kernel and rights allow `ip netns add`",
            "each pod has one",
        )
        if not made.ok:
            return
        yield from _in_namespace(host, space)
    finally:
        host.run(["ip", "netns", "delete", space], check=False)
    yield _overlay(host)
    kind = facts.CGROUP.read(host)
    yield Requirement(
        "cgroups",
        "must",
        True,
        "v2" if kind == "cgroup2fs" else "v1 (old: the kubelet is told to accept it)",
        "",
        "limits and accounting of pods",
    )


def sweep_probes(host: LocalHost) -> None:
    """Delete the namespaces that killed probes have left."""
    for line in host.run(["ip", "netns", "list"], check=False).lines:
        name = line.split()[0]
        process = name.removeprefix(_PROBE)
        if name != process and process.isdecimal() and not Path("/proc", process).exists():
            host.run(["ip", "netns", "delete", name], check=False)


def _in_namespace(host: LocalHost, space: str) -> Iterator[Requirement]:
    probes: list[tuple[str, str, list[str], str]] = [
        ("bridge", "must", ["ip", "link", "add", "p0", "type", "bridge"], "connects the pods of one machine"),
        (
            "veth",
            "must",
            ["ip", "link", "add", "p1", "type", "veth", "peer", "name", "p2"],
            "connects a pod to the bridge",
        ),
        (
            "vxlan",
            "must",
            ["ip", "link", "add", "p3", "type", "vxlan", "id", "1", "dstport", "8472", "local", "127.0.0.1"],
            "flannel's default backend",
        ),
        ("tun", "should", ["ip", "tuntap", "add", "p4", "mode", "tun"], "flannel's udp backend"),
        ("iptables", "must", [*facts.IPTABLES, "-t", "nat", "-N", "P"], "services are iptables rules"),
        (
            "statistic match",
            "must",
            [*facts.IPTABLES, "-t", "nat", "-A", "P", "-m", "statistic", "--mode", "random", "--probability", "0.5"],
            "kube-proxy uses it to spread connections",
        ),
        (
            "owner match",
            "must",
            [*facts.IPTABLES, "-t", "nat", "-A", "P", "-m", "owner", "--uid-owner", "1337"],
            "recognizes a sidecar's own traffic",
        ),
        (
            "redirect",
            "must",
            [*facts.IPTABLES, "-t", "nat", "-A", "P", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "15001"],
            "sends a pod's traffic to its sidecar",
        ),
        (
            "conntrack",
            "must",
            [*facts.IPTABLES, "-t", "filter", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"],
            "lets replies to open connections pass",
        ),
    ]
    for name, level, argv, why in probes:
        answer = host.run(["ip", "netns", "exec", space, *argv], check=False, timeout=20)
        said = (answer.stderr.strip().splitlines() or ["refused"])[-1]
        yield Requirement(
            name,
            level,
            answer.ok,
            "yes" if answer.ok else said[:160],
            "" if answer.ok else f"load the kernel module for {name} (modprobe) or use another kernel",
            why,
        )


def _overlay(host: LocalHost) -> Requirement:
    with tempfile.TemporaryDirectory(prefix="stackbook-") as name:
        folder = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (folder / part).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        try:
            answer = host.run(["mount", "-t", "overlay", "overlay", "-o", options, str(folder / "merged")], check=False)
        finally:
            host.run(["umount", str(folder / "merged")], check=False)
    said = "yes" if answer.ok else (answer.stderr.strip().splitlines() or ["refused"])[-1][:160]
    return Requirement(
        "overlayfs", "must", answer.ok, said, "" if answer.ok else "modprobe overlay", "stacks the layers of images"
    )
