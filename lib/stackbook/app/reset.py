"""Removing the lab, and proving by comparison that this host is as before."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbook.app.host_changes import Marks, Others, split
from stackbook.app.host_state import (
    TABLES,
    Difference,
    Lines,
    Snapshot,
    compare,
    control_groups,
    parse_rules,
    plain_names,
    rules,
    snapshot,
)
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.config.profile import Profile
from stackbook.core import paths, private, temp_dirs
from stackbook.core.errors import StackbookError
from stackbook.lab.step import now
from stackbook.machines import facts
from stackbook.machines.providers import for_profile, ssh_state
from stackbook.machines.providers.base import Say
from stackbook.machines.transports import Host, LocalHost

__all__ = ["Difference", "before", "compare", "leftovers", "parse_rules", "remember", "reset", "restore", "snapshot"]


def _memory(lab: str) -> Path:
    return paths.state(lab) / "before.json"


def remember(profile: Profile) -> None:
    """Save this host's state before the lab changes it; a second call keeps the first snapshot."""
    path = _memory(profile.lab)
    if profile.creates_machines and not path.exists():
        host = snapshot()
        host["sysctls"] = before_all_labs(host["sysctls"], path.parent.parent)
        private.write(
            path, json.dumps({"time": now(), "host": host}, indent=1)
        )  # at once: a lab that begins now reads it


def before_all_labs(current: Lines, states: Path) -> Lines:
    """The kernel parameters as they were before the first of the labs that are there, whose kubelets have changed some.

    Only a reset of the last lab gives them back, and it knows no others than those of its own snapshot.

    Args:
        current: the parameters now, one `key = value` each.
        states: the folder with the states of all labs.
    """
    kept = [json.loads(file.read_text(encoding="utf-8")) for file in states.glob("*/before.json")]
    first = min(kept, key=lambda memory: str(memory["time"]), default=None)
    lines = first["host"]["sysctls"] if first else []
    if not isinstance(current, list) or not isinstance(lines, list):
        return current
    old = {
        line.partition(" = ")[0]: line for line in lines if line.startswith(("kernel.", "vm."))
    }  # kubelets set these
    return [old.get(line.partition(" = ")[0], line) for line in current]


def before(profile: Profile) -> Snapshot | None:
    """The snapshot from before the lab, if there is one."""
    path = _memory(profile.lab)
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    host: Snapshot = dict(data["host"])
    if isinstance(host.get("namespaces"), list):  # an older release stored the numbers that `ip netns list` prints
        host["namespaces"] = plain_names(host["namespaces"])
    return host


def reset(profile: Profile, *, say: Say = print, machines: bool = True) -> list[Difference]:
    """Remove the lab and compare this host with its state before; returns the differences that can be the lab's.

    It reports what somebody else changed meanwhile, and leaves it alone. On machines that are not the lab's own, it runs
    `kubeadm reset`, which undoes what kubeadm did, and removes what else the lab made there. Packages stay.

    Raises:
        InputError: a run uses the lab; nothing was changed.
    """
    from stackbook.lessons.containers import docker_daemon, engine

    with only_run(profile.lab, who="stackbook reset"):
        if profile.target == "ssh" and machines:
            _reset_machines(profile, say)
        engine.sweep()
        for line in docker_daemon.sweep():
            say(line)
        host, old = LocalHost(), before(profile)
        lab = Marks.of(profile, host) if profile.creates_machines else None
        for_profile(profile).delete(say=say)
        mine: list[Difference] = []
        if old is not None and lab is not None:
            others = Others.look(profile.lab, host)
            restore(old, host, others, lab)
            mine, theirs = split(old, snapshot(host), lab, others)
            for difference in theirs:
                say(f"changed meanwhile, not by this lab: {difference}")
        temp_dirs.sweep_all()
        Store(profile.lab).forget_restoring()
        if not mine:
            shutil.rmtree(paths.state(profile.lab), ignore_errors=True)
        return mine


# kubeadm reset leaves the rules of kube-proxy, the kubelet, flannel and the port mapper, and says so. Counters and all other rules stay.
REMOVE_RULES = r"""
for program in iptables ip6tables; do
  command -v "$program-save" >/dev/null || continue
  rules="$("$program-save" -c | grep -vE '(^:| -A | -j | -g )(KUBE|FLANNEL|CNI)-')" || continue
  printf '%s\n' "$rules" | "$program-restore" -c
done
"""


def _reset_machines(profile: Profile, say: Say) -> None:
    from stackbook.cluster.kubeadm import RESTORE_KUBECONFIG, SOCKET

    for name, host in reversed(for_profile(profile).machines().items()):
        say(f"kubeadm reset on {name}")
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], check=False, timeout=180)
        host.run(["rm", "-rf", "/etc/cni/net.d/10-flannel.conflist", "/run/flannel"], check=False)
        host.run(["sh", "-c", RESTORE_KUBECONFIG], env={"HOME": "/root"}, check=False)
        host.run(["sh", "-c", REMOVE_RULES], check=False)
        for device in ("cni0", "flannel.1", "flannel0"):
            host.run(["ip", "link", "delete", device], check=False)
        ssh_state.give_back(host, profile.lab, {node.name: node.address for node in profile.nodes})


def restore(old: Mapping[str, Lines], host: Host, others: Others, lab: Marks) -> None:
    """Restore kernel parameters that changed; remove podman's chains and control groups if there were none before.

    It leaves alone what other containers or networks use now.
    """
    for line in old["sysctls"] if isinstance(old["sysctls"], list) else []:
        key, _, value = line.partition(" = ")
        if value and not others.use(key, old) and facts.sysctl(key).read(host) != value:
            host.run(["sysctl", "-w", f"{key}={value}"], check=False)
    if others.running or not others.known:
        return
    if old["cgroups"] == []:
        for group in control_groups(host):  # the kernel removes a control group only if it has no processes
            host.run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"], check=False)
    if isinstance(old["rules"], str) or any("NETAVARK" in rule for rule in old["rules"]):
        return
    found: dict[str, list[str]] = {}
    for table in TABLES:
        with contextlib.suppress(StackbookError):  # the comparison reports that it could not be read
            found[table] = [r.partition(" ")[2] for r in rules(host, table) if "NETAVARK" in r]
    if any(_of_another_network(rule, lab) for lines in found.values() for rule in lines):
        return
    for table, lines in found.items():
        _remove_chains(host, table, lines)


def _of_another_network(rule: str, lab: Marks) -> bool:
    """Whether a podman made the rule for a network that is not the lab's.

    It may be one with another storage, whose containers and networks this host's own podman does not list.
    """
    return re.search(r" -[sd] (?!224\.0\.0\.0/4)", rule) is not None and not lab.address(rule)


def _remove_chains(host: Host, table: str, found: Sequence[str]) -> None:
    """Remove podman's own chains of a table, and the rules that jump to them."""
    for rule in (r for r in found if r.startswith("-A")):
        host.run([*facts.IPTABLES, "-t", table, "-D", *shlex.split(rule)[1:]], check=False)  # comments have quotes
    for rule in (r for r in found if r.startswith(":")):
        host.run([*facts.IPTABLES, "-t", table, "-X", rule[1:].split()[0]], check=False)


def leftovers(profile: Profile) -> list[str]:
    """What is left of the lab on this host, in words; empty after a complete reset."""
    host, old = LocalHost(), before(profile)
    marks, others = Marks.of(profile, host), Others.look(profile.lab, host)
    if old is not None:
        return [str(d) for d in split(old, snapshot(host), marks, others)[0]]
    return [f"{kind}: {name}" for kind, names in marks.present.items() for name in sorted(names)]


# What chapter 99 says about the comparison; the keys are those of `snapshot`.
SCOPE: list[dict[str, str]] = [
    {"kind": "containers, volumes, networks", "as seen by": "podman"},
    {"kind": "interfaces, routes", "as seen by": "ip address, ip route"},
    {"kind": "network namespaces", "as seen by": "ip netns"},
    {"kind": "mounts", "as seen by": "/proc/self/mounts"},
    {"kind": "packet filter rules", "as seen by": "iptables-save, without counters"},
    {"kind": "kernel parameters of the whole host", "as seen by": "sysctl"},
    {"kind": "control groups", "as seen by": "/sys/fs/cgroup"},
]
