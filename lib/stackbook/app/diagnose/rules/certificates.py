"""Certificates: each is valid now."""

from __future__ import annotations

from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import sections, valid_until
from stackbook.app.diagnose.snapshot import Snapshot

LAYER = "certificates"
_RENEWED = {
    "apiserver.crt": "apiserver",
    "apiserver-kubelet-client.crt": "apiserver-kubelet-client",
    "apiserver-etcd-client.crt": "apiserver-etcd-client",
    "front-proxy-client.crt": "front-proxy-client",
    "etcd/server.crt": "etcd-server",
    "etcd/peer.crt": "etcd-peer",
    "etcd/healthcheck-client.crt": "etcd-healthcheck-client",
}


def certificates(snapshot: Snapshot) -> Iterator[Cause]:
    """Every certificate on a machine is valid now: not expired, and not in the future."""
    for machine in snapshot.up:
        for path, dates in sections(machine.text("certificates")).items():
            if not (problem := valid_until(dates, snapshot.time)):
                continue
            name = path.rpartition("/pki/")[2]
            # Only the kubelet's clients see its serving certificate, and none of them checks it.
            seen = tuple(line for line in dates.splitlines() if line.startswith("not"))
            yield Cause("certificate-expired", LAYER, f"{path} on {machine.name} is {problem}", seen,
                        snapshot.on(machine.name, _renewal(name)), weight=1 if name == "kubelet.crt" else 0)  # fmt: skip


def _renewal(name: str) -> str:
    if name in _RENEWED:
        return f"kubeadm certs renew {_RENEWED[name]} && systemctl restart kubelet"
    if name.startswith("kubelet"):
        return "rm /var/lib/kubelet/pki/kubelet-client-current.pem; kubeadm init phase kubeconfig kubelet; systemctl restart kubelet"
    return "kubeadm certs check-expiration"


RULES = (certificates,)
