"""Pods that a kubelet starts at once when its machine is started again, before flanneld is there.

flanneld writes a node's subnet into /run, which is empty then. Without it no pod's network can be made, and the kubelet waits
10 s and more before it tries again. A restarted kubelet tries at once. It must not be sooner: what a pod sends before
kube-proxy and flanneld have their rules gets no answer, and CoreDNS and istiod wait 30 s for one.
"""

from __future__ import annotations

from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines.transports import Host

SUBNET = "/run/flannel/subnet.env"
"""flanneld writes it last: its own rules are there by then, and kube-proxy's, as it reaches the API server by them."""
NETWORK = "/etc/cni/net.d/10-flannel.conflist"


def retry(host: Host, *, timeout: float) -> bool:
    """Once a machine's flanneld is there, have its kubelet try all pods again; returns whether it was there in time.

    Does nothing on a machine on which flannel was never installed.
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
