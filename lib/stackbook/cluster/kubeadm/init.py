"""The phase `kubeadm init`, and whether it has completed."""

from __future__ import annotations

import re

from stackbook.cluster.kubeadm.configuration import PATCHES, SOCKET
from stackbook.core.errors import CommandFailed
from stackbook.machines.transports import Host

CONFIG = "/etc/stackbook/kubeadm.yaml"
DONE = "/etc/stackbook/kubeadm-init.done"
ADMIN = "/etc/kubernetes/admin.conf"
_ASK = ("kubectl", f"--kubeconfig={ADMIN}", "-n", "kube-system")


# The kubelet probes the readiness of CoreDNS every second instead of every ten, so the cluster resolves names sooner.
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
    """Whether kubeadm init has completed on this machine, even if its API server does not answer now.

    A marker file says so. A lab from an older version has no marker; there, the API server is asked for the object that
    kubeadm creates last.
    """
    if not host.run(["test", "-s", ADMIN], check=False).ok:
        return False
    return _marked(host) or host.run([*_ASK, "get", "configmap", "kube-proxy"], check=False).ok


def _marked(host: Host) -> bool:
    return host.run(["test", "-e", DONE], check=False).ok


def kubeadm_init(host: Host, config: str, *, timeout: float = 900.0) -> int:
    """Run `kubeadm init` unless it has completed; an incomplete one is reset first. Returns the number of changes.

    A complete cluster that does not answer never counts as incomplete: a reset would delete everything in it.

    Raises:
        CommandFailed: kubeadm failed; the message ends with the last errors of the kubelet.
    """
    if initialised(host):
        if not _marked(host):
            host.write(DONE, "")
        return 0
    if host.run(["test", "-e", "/etc/kubernetes/manifests/kube-apiserver.yaml"], check=False).ok:
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], timeout=120)
    host.run(["rm", "-f", DONE])
    host.write(CONFIG, config, mode=0o600)
    host.write(f"{PATCHES}/corednsdeployment+strategic.yaml", DNS_PATCH)
    # kubeadm would print the token of the join command, which is valid for a day; it must not get into a record.
    explained(host, ["kubeadm", "init", "--config", CONFIG, "--skip-token-print"], timeout)
    host.write(DONE, "")
    return 1


def explained(host: Host, argv: list[str], timeout: float) -> None:
    """Run kubeadm; if it fails, add the last errors of the kubelet, because they contain the reason."""
    try:
        host.run(argv, timeout=timeout)
    except CommandFailed as error:
        said = host.run(
            ["journalctl", "-m", "-u", "kubelet", "--no-pager", "-n", "40", "-o", "cat"], check=False
        ).stdout
        last = [line for line in said.splitlines() if re.search(r"^E|[Ff]ailed|[Ee]rror", line)][-3:]
        fix = f"the kubelet said: {' | '.join(last)}" if last else "see `journalctl -m -u kubelet` on the machine"
        raise CommandFailed(error.result, fix=fix) from None
