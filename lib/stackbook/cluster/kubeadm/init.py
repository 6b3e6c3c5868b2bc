"""The phase `kubeadm init`, and whether it has completed."""

from __future__ import annotations

import re

from stackbook.cluster.kubeadm.configuration import PATCHES, SOCKET
from stackbook.core.errors import CommandFailed
from stackbook.machines.transports import Host

CONFIG = "/etc/stackbook/kubeadm.yaml"


# CoreDNS is asked every second whether it is ready, not every ten: a cluster answers names that much sooner.
DNS_PATCH = """\
spec:
  template:
    spec:
      containers:
      - name: coredns
        readinessProbe:
          periodSeconds: 1
"""


def initialised(host: Host) -> bool:
    """Whether kubeadm init has completed on this machine: it writes admin.conf early and the ConfigMap last."""
    probe = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "-n",
        "kube-system",
        "get",
        "configmap",
        "kube-proxy",
    ]
    return host.run(["test", "-s", "/etc/kubernetes/admin.conf"], check=False).ok and host.run(probe, check=False).ok


def kubeadm_init(host: Host, config: str, *, timeout: float = 240.0) -> int:
    """Run `kubeadm init` unless it has completed; a half-done one is reset first. Returns the number of changes.

    Raises:
        CommandFailed: kubeadm failed; the message ends with what the kubelet said last.
    """
    if initialised(host):
        return 0
    if host.run(["test", "-e", "/etc/kubernetes/manifests/kube-apiserver.yaml"], check=False).ok:
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], timeout=120)
    host.write(CONFIG, config, mode=0o600)
    host.write(f"{PATCHES}/corednsdeployment+strategic.yaml", DNS_PATCH)
    # Its output holds the token of the join command, which lives for a day: kept out of every record.
    explained(host, ["kubeadm", "init", "--config", CONFIG, "--skip-token-print"], timeout)
    return 1


def explained(host: Host, argv: list[str], timeout: float) -> None:
    """Run kubeadm; when it fails, say what the kubelet and the containers said, which is where the reason is."""
    try:
        host.run(argv, timeout=timeout)
    except CommandFailed as error:
        said = host.run(
            ["journalctl", "-m", "-u", "kubelet", "--no-pager", "-n", "40", "-o", "cat"], check=False
        ).stdout
        last = [line for line in said.splitlines() if re.search(r"^E|[Ff]ailed|[Ee]rror", line)][-3:]
        fix = f"the kubelet said: {' | '.join(last)}" if last else "see `journalctl -m -u kubelet` on the machine"
        raise CommandFailed(error.result, fix=fix) from None
