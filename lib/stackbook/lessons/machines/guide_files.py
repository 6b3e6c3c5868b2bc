"""The guide's files of section 1.1.1, as printed, and what the machines of the lab have in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.cluster.kubeadm.runtime import containerd_config
from stackbook.lessons.machines import addressing
from stackbook.machines.operations import comment_swap

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

RESOLVED = "DNS=192.168.98.2\n"
DAEMON = """\
{
  "exec-opts": ["native.cgroupdriver=systemd"]
}
"""
FSTAB = "/swapfile                                 none            swap    sw              0       0\n"


def pairs(lab: Lab) -> dict[str, tuple[str, str]]:
    """Each file: as the guide prints it, and as it is today; containerd's file has taken the place of Docker's."""
    containerd = containerd_config(lab.images.kubeadm.pause, contained=lab.contained)
    return {
        "/etc/network/interfaces": (addressing.GUIDE_INTERFACES, addressing.corrected_interfaces(lab.profile)),
        "/etc/systemd/resolved.conf": (RESOLVED, addressing.resolved_conf(lab.profile)),
        "/etc/docker/daemon.json, now /etc/containerd/config.toml": (DAEMON, containerd),
        "/etc/fstab": (FSTAB, comment_swap(FSTAB)),
    }
