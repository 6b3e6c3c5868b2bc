"""The container runtime: containerd, its configuration, its sandbox image, its proxies."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import newest, unit
from stackbook.app.diagnose.snapshot import Snapshot
from stackbook.machines.facts import parse_key_values

LAYER = "container runtime"
_BROKEN = r"failed to load TOML|failed to unmarshal TOML|toml: |invalid plugin config|expected"


def containerd(snapshot: Snapshot) -> Iterator[Cause]:
    """Containerd runs; if not, whether its configuration is the cause."""
    for machine in snapshot.up:
        state = unit(machine, "containerd")
        if not state:
            if machine["units"].problem:
                yield Cause("systemd-silent", "machines", f"systemd on {machine.name} does not answer",
                            (f"systemctl: {machine['units'].problem}",), snapshot.stackbook("run", "--only 01"),
                            weight=1)  # fmt: skip
            continue
        if state.get("ActiveState") == "active":
            continue
        seen = f"containerd.service: {state.get('LoadState')}, {state.get('ActiveState')} ({state.get('SubState')})"
        said = newest(machine.text("containerd log"), _BROKEN) if state.get("SubState") != "dead" else ""
        if state.get("LoadState") == "not-found":
            yield Cause("containerd-missing", LAYER, f"containerd is not installed on {machine.name}", (seen,),
                        snapshot.stackbook("run", "--only 01"), weight=0)  # fmt: skip
        elif said:
            yield Cause("containerd-config", LAYER, f"containerd on {machine.name} cannot read its configuration",
                        (seen, said), snapshot.stackbook("run", "--only 01 --again"), weight=0)  # fmt: skip
        else:
            yield Cause("containerd-stopped", LAYER, f"containerd is not running on {machine.name}", (seen,),
                        snapshot.on(machine.name, "systemctl restart containerd"), weight=0)  # fmt: skip


def sandbox_image(snapshot: Snapshot) -> Iterator[Cause]:
    """The image of the pods' sandboxes is on the machine: there may be no registry to pull it from."""
    for machine in snapshot.up:
        wanted = re.search(r'^\s*sandbox_image\s*=\s*"([^"]+)"', machine.text("containerd config"), re.MULTILINE)
        images = machine.text("images").split()
        if wanted and images and wanted[1] not in images:
            yield Cause("sandbox-image-missing", LAYER, f"{machine.name} lacks the image for the sandboxes of pods",
                        (f"sandbox_image = {wanted[1]}", f"it is not among the {len(images)} images on the machine"),
                        snapshot.stackbook("run", "--only 02 --again"), weight=1)  # fmt: skip


def cgroup_drivers(snapshot: Snapshot) -> Iterator[Cause]:
    """The kubelet and containerd use the same cgroup driver."""
    for machine in snapshot.up:
        driver = re.search(r"^cgroupDriver:\s*(\w+)", machine.text("kubelet config"), re.MULTILINE)
        systemd = re.search(r"^\s*SystemdCgroup\s*=\s*(\w+)", machine.text("containerd config"), re.MULTILINE)
        if not driver or not systemd:
            continue
        theirs = "systemd" if systemd[1] == "true" else "cgroupfs"
        if driver[1] != theirs:
            yield Cause("cgroup-drivers", LAYER,
                        f"on {machine.name} the kubelet and containerd use different cgroup drivers",
                        (f"/var/lib/kubelet/config.yaml: cgroupDriver: {driver[1]}",
                         f"/etc/containerd/config.toml: SystemdCgroup = {systemd[1]}"),
                        snapshot.on(machine.name, "sed -i 's/^cgroupDriver:.*/cgroupDriver: systemd/' "
                                    "/var/lib/kubelet/config.yaml; systemctl restart kubelet"), weight=2)  # fmt: skip


def proxies(snapshot: Snapshot) -> Iterator[Cause]:
    """Containerd does not use a proxy for addresses inside the lab."""
    inside = [snapshot.profile.service_cidr, snapshot.profile.pod_cidr]
    for machine in snapshot.up:
        values = parse_key_values(machine.text("containerd proxies"))
        proxy = next(
            (values[n] for n in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY") if values.get(n)), ""
        )
        if not proxy:
            continue
        spared = (values.get("no_proxy") or values.get("NO_PROXY") or "").split(",")
        missing = [network for network in inside if not _covered(network, spared)]
        if missing:
            yield Cause("proxy-for-the-inside", LAYER,
                        f"containerd on {machine.name} uses a proxy for addresses inside the lab",
                        (f"proxy: {proxy}", f"NO_PROXY lacks {', '.join(missing)}"),
                        snapshot.stackbook("run", "--only 01 --again"), weight=3)  # fmt: skip


def _covered(network: str, spared: list[str]) -> bool:
    wanted = ipaddress.ip_network(network)
    for part in map(str.strip, spared):
        if part == "*":
            return True
        with suppress(ValueError):
            if wanted.subnet_of(ipaddress.ip_network(part)):  # type: ignore[arg-type]
                return True
    return False


RULES = (containerd, sandbox_image, cgroup_drivers, proxies)
