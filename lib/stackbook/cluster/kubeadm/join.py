"""The phase `kubeadm join`, and whether it has completed."""

from __future__ import annotations

import re

from stackbook.cluster.kubeadm.configuration import SOCKET, Images, join_config
from stackbook.cluster.kubeadm.init import explained
from stackbook.config.profile import Profile
from stackbook.core.errors import StackbookError
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.machines.transports import Host

JOIN = "/run/stackbook/join.yaml"


def joined(host: Host) -> bool:
    """Whether kubeadm join has completed: the kubelet has its own certificate."""
    return host.run(["test", "-s", "/etc/kubernetes/kubelet.conf"], check=False).ok


def join_command(control_plane: Host) -> tuple[Secret, str]:
    """A new bootstrap token and the hash of the cluster's CA, from `kubeadm token create --print-join-command`."""
    text = control_plane.run(
        ["kubeadm", "token", "create", "--ttl", "30m", "--print-join-command"], secret=True, timeout=60
    ).reveal()
    token, digest = parsed(text)
    _wait_signed(control_plane, token)
    return token, digest


def parsed(text: str) -> tuple[Secret, str]:
    """The token and the hash of the CA in the join command that kubeadm prints."""
    token = re.search(r"--token (\S+)", text)
    digest = re.search(r"--discovery-token-ca-cert-hash (sha256:[0-9a-f]{64})", text)
    if not token or not digest:
        raise StackbookError("kubeadm token create did not print a join command")
    return Secret(token.group(1)), digest.group(1)


def _wait_signed(control_plane: Host, token: Secret) -> None:
    """Wait until the ConfigMap cluster-info is signed with a new token.

    kubeadm join checks for that signature only every five seconds, so starting it too early costs five seconds.
    """
    name = f"jws-kubeconfig-{token.reveal().partition('.')[0]}"
    ask = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "-n",
        "kube-public",
        "get",
        "configmap",
        "cluster-info",
    ]
    until(
        lambda: name in control_plane.run([*ask, "-o", "yaml"], secret=True).reveal(),
        what="the controller manager to sign cluster-info with the new token",
        timeout=60,
        every=0.2,
    )


def kubeadm_join(
    host: Host,
    control_plane: Host,
    profile: Profile,
    images: Images,
    *,
    cgroup_v1: bool,
    timeout: float = 900.0,
) -> int:
    """Run `kubeadm join` unless it has completed; an incomplete one is reset first. Returns the number of changes.

    The token goes to the machine in a file that only root can read, and never on a command line. The file is removed afterwards.
    """
    if joined(host):
        return 0
    if host.run(["test", "-e", "/etc/kubernetes/bootstrap-kubelet.conf"], check=False).ok:
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], timeout=120)
    token, digest = join_command(control_plane)
    host.write(JOIN, join_config(host.name, token, digest, profile, images, cgroup_v1=cgroup_v1), mode=0o600)
    try:
        explained(host, ["kubeadm", "join", "--config", JOIN], timeout)
    finally:
        host.run(["rm", "-f", JOIN])
    return 1
