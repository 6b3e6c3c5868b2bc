"""The disks of a machine, which keep their content when it stops: what it has written over its image, and its volumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.core.errors import HostUnfit, StackbookError
from stackbook.machines.providers.container_flags import VOLUMES
from stackbook.machines.providers.podman import Embedded

ROOT = "root"
"""The disk with what a machine has written over its image."""


@dataclass(frozen=True)
class Disk:
    """One disk of a machine: a folder on this host.

    Args:
        machine: the machine's name.
        what: ROOT, or the name of a volume, which is mounted at /var/lib/<name>.
        folder: where the files are on this host.
    """

    machine: str
    what: str
    folder: Path


def disks(provider: Embedded) -> list[Disk]:
    """Every disk of the profile's machines, even of stopped ones.

    Raises:
        HostUnfit: podman uses another storage driver than overlay.
        StackbookError: a machine is missing, or has no such volume.
    """
    found = {str(entry["Name"]): entry for entry in inspected(provider)}
    made: list[Disk] = []
    for node in provider.profile.nodes:
        entry = found[provider.container(node.name)]
        driver = entry["GraphDriver"]
        if driver["Name"] != "overlay":
            raise HostUnfit(
                f"podman keeps containers by {driver['Name']!r} on this host, and snapshots need 'overlay'",
                fix='set driver = "overlay" in /etc/containers/storage.conf, then stackbook reset and stackbook run',
            )
        made.append(Disk(node.name, ROOT, Path(driver["Data"]["UpperDir"])))
        mounts = {m["Destination"]: m["Source"] for m in entry["Mounts"] if m.get("Type") == "volume"}
        for volume in VOLUMES:
            if f"/var/lib/{volume}" not in mounts:
                raise StackbookError(f"{node.name} has no volume at /var/lib/{volume}", fix="stackbook reset")
            made.append(Disk(node.name, volume, Path(mounts[f"/var/lib/{volume}"])))
    return made


def image(provider: Embedded) -> str:
    """The name of the machines' image.

    Raises:
        StackbookError: the machines have several images.
    """
    names = {str(entry["ImageName"]) for entry in inspected(provider)}
    if len(names) != 1:
        raise StackbookError(
            f"the machines were made of several images: {', '.join(sorted(names))}", fix="stackbook reset"
        )
    return names.pop()


def inspected(provider: Embedded) -> list[dict[str, Any]]:
    """The output of `podman inspect` for the profile's machines.

    Raises:
        StackbookError: a machine is missing.
    """
    there = provider.containers()
    names = [provider.container(node.name) for node in provider.profile.nodes]
    if missing := [name for name in names if name not in there]:
        raise StackbookError(f"there is no machine {missing[0]}", fix="stackbook run --to 01")
    answer = provider.host.run([*provider.podman, "inspect", "--type", "container", *names], timeout=60)
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def used(provider: Embedded, found: Sequence[Disk]) -> int:
    """The size of these disks on this host, in bytes."""
    argv = ["du", "-s", "--block-size=1", *(str(disk.folder) for disk in found)]
    # A file that disappears meanwhile is not an error.
    return sum(int(line.split()[0]) for line in provider.host.run(argv, check=False, timeout=120).lines)
