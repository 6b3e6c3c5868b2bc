"""Pods that a kubelet starts after a restart of its machine, before flanneld runs.

flanneld writes a node's subnet into /run, which is empty after a restart. Without this file, no pod gets a network, and the
kubelet waits 10 s and more before it tries again. A restarted kubelet tries at once. It must not be restarted too early: what
a pod sends before kube-proxy and flanneld have set their rules gets no answer, and CoreDNS and istiod wait 30 s for one.
"""

from __future__ import annotations

from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines.transports import Host

SUBNET = "/run/flannel/subnet.env"
"""flanneld writes this file after its own rules. kube-proxy's rules exist by then, because flanneld reaches the API server by them."""
NETWORK = "/etc/cni/net.d/10-flannel.conflist"


def retry(host: Host, *, timeout: float) -> bool:
    """Wait until flanneld runs on a machine, then restart the kubelet so that it tries all pods again.

    Does nothing on a machine on which flannel was never installed.

    Returns:
        Whether flanneld ran within `timeout` seconds.
    """
    if not host.run(["test", "-e", NETWORK], check=False).ok:
        return True
    try:
        until(
            lambda: host.run(["test", "-s", SUBNET], check=False).ok,
            what=f"{host.name} to have flannel's subnet", timeout=timeout, every=0.2,
        )  # fmt: skip
    except WaitTimeout:
        return False
    host.run(["systemctl", "restart", "kubelet"], timeout=60)
    return True
