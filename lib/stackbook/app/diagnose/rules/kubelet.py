"""The kubelet: whether it runs, and if not, what its log says; its address of the API server; swap."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import newest, unit
from stackbook.app.diagnose.snapshot import Machine, Snapshot
from stackbook.machines import facts

LAYER = "kubelet"
_REASONS = (
    ("kubelet-flag", r"unknown flag|unknown shorthand flag|failed to parse kubelet flag|invalid argument \"",
     "starts with a flag that it does not know or cannot parse"),
    ("kubelet-config", r"failed to load kubelet config file|error unmarshaling|failed to decode|"
     r"failed to validate kubelet configuration|invalid configuration", "cannot read its configuration"),
    ("cgroup-drivers", r"misconfiguration: kubelet cgroup driver", "uses another cgroup driver than containerd"),
    ("kubelet-swap", r"running with swap on is not supported", "refuses to run while swap is on"),
    ("kubelet-certificate", r"part of the existing bootstrap client certificate.*expired|bootstrap-kubelet.conf: no such",
     "has no valid certificate for the API server"),
)  # fmt: skip
_FIXES = {
    "kubelet-flag": "cat /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet   # correct it, then: systemctl restart kubelet",
    "kubelet-config": "kubelet --config=/var/lib/kubelet/config.yaml --help >/dev/null; kubeadm upgrade node phase "
    "kubelet-config && systemctl restart kubelet",
    "kubelet-swap": "swapoff -a && systemctl restart kubelet",
}


def kubelet(snapshot: Snapshot) -> Iterator[Cause]:
    """The kubelet of each machine runs; if it keeps exiting, its last log lines say why."""
    for machine in snapshot.up:
        state = unit(machine, "kubelet")
        if not state or state.get("LoadState") == "not-found":
            continue  # no kubelet yet: `not_joined` says so
        healthy = machine.text("kubelet healthz").strip() == "ok"
        active = state.get("ActiveState")
        if active == "active" and healthy:
            continue
        seen = f"kubelet.service: {active} ({state.get('SubState')}), {state.get('NRestarts')} restarts"
        health = machine["kubelet healthz"]
        if active in ("inactive", "deactivating"):
            yield Cause("kubelet-stopped", LAYER, f"the kubelet is not running on {machine.name}", (seen,),
                        snapshot.on(machine.name, "systemctl start kubelet"), weight=0)  # fmt: skip
            continue
        if not _prepared(machine):
            continue
        log = machine.text("kubelet log")
        for name, pattern, words in _REASONS:
            if said := newest(log, pattern):
                fix = _FIXES.get(name, "journalctl -m -u kubelet -n 50 --no-pager")
                yield Cause(name, LAYER, f"the kubelet of {machine.name} {words}", (seen, said),
                            snapshot.on(machine.name, fix), weight=0)  # fmt: skip
                break
        else:
            said = newest(log, r"^E\d|[Ee]rror|[Ff]ailed") or "its log has no error"
            if not healthy and active == "active":
                seen += f"; its healthz: {(health.out or health.err or health.problem).strip()[:100] or 'no answer'}"
            yield Cause("kubelet-failing", LAYER, f"the kubelet of {machine.name} keeps exiting, or is not healthy",
                        (seen, said), snapshot.on(machine.name, "journalctl -m -u kubelet -n 50 --no-pager"),
                        follows=unit(machine, "containerd").get("ActiveState") != "active", weight=1)  # fmt: skip


def _prepared(machine: Machine) -> bool:
    """Whether kubeadm has run here: before that, the kubelet waits for its configuration, which is not a fault."""
    return machine["kubelet config"].ok or bool(machine.text("server of kubeconfigs"))


def not_joined(snapshot: Snapshot) -> Iterator[Cause]:
    """Kubeadm made each machine a node."""
    for machine in snapshot.up:
        if machine["server of kubeconfigs"].problem or machine.text("server of kubeconfigs"):
            continue
        what, chapter = ("kubeadm init was not", "02") if machine.control_plane else ("kubeadm join was not", "02")
        yield Cause("node-not-joined", LAYER, f"{what} completed on {machine.name}",
                    ("/etc/kubernetes/kubelet.conf is missing, for example because the join token had expired",),
                    snapshot.stackbook("run", f"--only {chapter}"), weight=2)  # fmt: skip


def address(snapshot: Snapshot) -> Iterator[Cause]:
    """The kubelet has the right address of the API server."""
    wanted = snapshot.profile.control_plane
    for machine in snapshot.up:
        found = re.search(r"server:\s*https://\[?([\w.-]+)\]?:(\d+)", machine.text("server of kubeconfigs"))
        if found and found[1] not in (wanted.address, wanted.name, "127.0.0.1", "localhost"):
            right = f"https://{wanted.address}:6443"
            yield Cause("kubelet-address", LAYER, f"the kubelet of {machine.name} has a wrong address of the API server",
                        (f"kubelet.conf: {found[0]}", f"the control plane is {wanted.address}"),
                        snapshot.on(machine.name, f"sed -i 's#server:.*#server: {right}#' /etc/kubernetes/kubelet.conf; "
                                    "systemctl restart kubelet"), weight=2)  # fmt: skip


def swap(snapshot: Snapshot) -> Iterator[Cause]:
    """If there is swap, the kubelet's configuration allows it."""
    for machine in snapshot.up:
        devices = facts.parse_swap(machine.text("swap"))
        config = machine.text("kubelet config")
        if devices and config and not re.search(r"^failSwapOn:\s*false", config, re.MULTILINE):
            yield Cause("kubelet-swap", LAYER, f"{machine.name} has swap, and its kubelet refuses to run with it",
                        (f"/proc/swaps: {', '.join(devices)}", "failSwapOn is not false"),
                        snapshot.on(machine.name, _FIXES["kubelet-swap"]), weight=2)  # fmt: skip


RULES = (kubelet, not_joined, address, swap)
