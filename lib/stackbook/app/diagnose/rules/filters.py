"""Packet filters: rules that are not the cluster's and that drop packets it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.snapshot import Snapshot

PORTS = {
    "8472": ("pod network", "flannel's VXLAN packets"),
    "8285": ("pod network", "flannel's UDP packets"),
    "6443": ("machines", "the API server"),
    "10250": ("machines", "the kubelet"),
    "2379": ("machines", "etcd"),
    "2380": ("machines", "etcd"),
    "53": ("pod network", "DNS"),
    "443": ("pod network", "HTTPS, such as requests to the API server's Service"),
    "15012": ("pod network", "istiod, from which proxies get their configuration"),
    "15017": ("pod network", "istiod's webhooks"),
}
_THEIRS = re.compile(r"^-A (?:KUBE-|FLANNEL|CNI-|ISTIO_|NETAVARK|DOCKER)")


def drops(snapshot: Snapshot) -> Iterator[Cause]:
    """No rule drops or rejects the ports that the cluster needs, and no chain drops everything."""
    for machine in snapshot.up:
        table = ""
        for line in machine.text("packet filter").splitlines():
            if line.startswith("*"):
                table = line[1:]
            if not re.search(r"-j (DROP|REJECT)\b", line) or not line.startswith("-A ") or _THEIRS.match(line):
                continue
            ports = re.findall(r"--[ds]ports? ([\d,:]+)", line)
            hit = next((port for part in ports for port in part.split(",") if port in PORTS), "")
            whole = not ports and not re.search(r"-m |-s |-d |-i |-o |-p ", line)
            if not hit and not whole:
                continue
            layer, what = PORTS.get(hit, ("machines", "everything"))
            yield Cause("packet-filter", layer, f"a packet filter rule on {machine.name} drops {what}",
                        (f"iptables -t {table}: {line}",),
                        snapshot.on(machine.name, f"iptables -t {table} -D {line.removeprefix('-A ')}"),
                        weight=0)  # fmt: skip


RULES = (drops,)
