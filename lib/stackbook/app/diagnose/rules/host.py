"""This host: podman, its disks, the kubeconfig."""

from __future__ import annotations

from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import full_disks, valid_until
from stackbook.app.diagnose.snapshot import ABSENT, NOTHING, Snapshot

LAYER = "this host"


def podman(snapshot: Snapshot) -> Iterator[Cause]:
    """Podman runs the machines; without it, nothing is known about them."""
    answer = snapshot.host.get("podman", NOTHING)
    if answer.rc:
        said = answer.err.strip().splitlines() or [f"status {answer.rc}"]
        yield Cause("podman-broken", LAYER, "podman does not work on this host", (said[0], *said[1:][-1:]), "podman ps -a",
                    weight=0)  # fmt: skip


def no_lab(snapshot: Snapshot) -> Iterator[Cause]:
    """None of the machines was ever created."""
    states = {machine.state for machine in snapshot.machines.values()}
    if snapshot.profile.target == "embedded" and states == {ABSENT}:
        names = ", ".join(snapshot.machines)
        yield Cause("no-lab", LAYER, f"there is no lab {snapshot.profile.lab!r} on this host",
                    (f"podman has no container for {names}",), snapshot.stackbook("run"), weight=1)  # fmt: skip


def disks(snapshot: Snapshot) -> Iterator[Cause]:
    """If a disk of this host is full, so is every machine's."""
    for path, line in full_disks(snapshot.host.get("disks", NOTHING).out):
        yield Cause("host-disk-full", LAYER, f"the file system of {path} is full on this host", (line,),
                    "stackbook reset --cache   # or free space: du -xh --max-depth=2 / | sort -h | tail", weight=2)  # fmt: skip


def kubeconfig(snapshot: Snapshot) -> Iterator[Cause]:
    """The kubeconfig exists, has a valid certificate, and names the control plane."""
    answer = snapshot.host.get("kubeconfig", NOTHING)
    profile = snapshot.profile
    again = snapshot.stackbook("run", "--only 02")
    if not answer.ok and answer is not NOTHING:
        if profile.target == "cluster":
            again = "set kubeconfig: in the profile"
        elif not snapshot.up or not any(m.text("server of kubeconfigs") for m in snapshot.up):
            return  # there is no cluster yet: other rules say so
        said = (answer.problem or answer.err).strip().splitlines() or ["the file cannot be read"]
        yield Cause("kubeconfig-missing", LAYER, "this host has no readable kubeconfig", (said[-1],), again,
                    weight=3)  # fmt: skip
        return
    certificate = snapshot.host.get("kubeconfig certificate", NOTHING)
    if (problem := valid_until(certificate.out, snapshot.time)) and certificate.ok:
        yield Cause("kubeconfig-expired", LAYER, f"the certificate in the kubeconfig is {problem}",
                    tuple(certificate.out.split("\n")[:2]), again, weight=3)  # fmt: skip
    wanted = profile.control_plane.address if profile.target != "cluster" else ""
    if answer.ok and wanted and f"//{wanted}:" not in answer.out:
        yield Cause("kubeconfig-address", LAYER, "the kubeconfig names another address than the control plane's",
                    (f"server: {answer.out.strip()}", f"the control plane is {wanted}"), again, weight=3)  # fmt: skip


RULES = (podman, no_lab, disks, kubeconfig)
