"""Installing kubeadm and the shell's completion: the guide's way, and today's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.cluster.kubeadm import BINARIES, install
from stackbook.machines.each import on_each
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

FISHER: list[dict[str, str]] = [
    {"the guide": "curl https://git.io/fisher …", "today": "git.io is frozen; curl -sL …/fisher.fish | source"},
    {"the guide": "source …/fisher.fish", "today": "not needed: fish loads its functions folder by itself"},
    {"the guide": "fisher add evanlucas/fish-kubectl-completions", "today": "fisher install …; kubectl completion fish replaces it"},
]  # fmt: skip


def programs(lab: Lab) -> int:
    """Install kubelet and kubeadm on every machine, and on the control plane kubectl too; returns how many were missing."""
    files = {name: lab.artifacts.path(name) for name in BINARIES}

    def missing(name: str, host: Host) -> int:
        wanted = BINARIES if name == lab.profile.control_plane.name else BINARIES[:2]
        return len(install(host, {each: files[each] for each in wanted}, lab.profile.kubernetes_version))

    return sum(on_each(lab.machines, missing).values())


def packages(version: str) -> list[dict[str, str]]:
    """The commands that install the three programs from the project's packages, in order, for a version like 1.36.3."""
    minor = ".".join(version.split(".")[:2])
    key = "/etc/apt/keyrings/kubernetes-apt-keyring.gpg"
    site = f"https://pkgs.k8s.io/core:/stable:/v{minor}/deb/"
    pins = " ".join(f"{name}='{version}-*'" for name in BINARIES)
    return [
        {"for": "the key", "command": f"curl -fsSL {site}Release.key | sudo gpg --dearmor -o {key}"},
        {"for": "the source", "command": f"deb [signed-by={key}] {site} /"},
        {"for": "the lists", "command": "sudo apt-get update"},
        {"for": "the programs, pinned", "command": f"sudo apt-get install -y {pins}"},
        {"for": "no surprise upgrade", "command": "sudo apt-mark hold kubelet kubeadm kubectl"},
    ]
