"""Following a Service through kube-proxy's iptables rules to its endpoints, and the balance of its requests."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.analysis.display import PALETTE
from stackbook.core.errors import CheckFailed
from stackbook.lessons.kubernetes.myapp import NAMESPACE
from stackbook.machines import facts
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


@dataclass(frozen=True)
class Hop:
    """One rule on a connection's path: `share` is the probability that a connection to the service takes it."""

    chain: str
    match: str
    target: str
    share: float


def chain_of(rules: str, address: str, port: int) -> list[Hop]:
    """The rules that a connection to a ClusterIP meets, in order.

    Args:
        rules: output of `iptables-save -t nat`.
        address: the ClusterIP.
        port: the service's port.

    Raises:
        CheckFailed: there is no rule for that address.
    """
    entry = re.search(
        rf"^-A KUBE-SERVICES -d {re.escape(address)}/32 -p tcp .*--dport {port} .*?-j (KUBE-SVC-\w+)",
        rules,
        re.MULTILINE,
    )
    if not entry:
        raise CheckFailed(f"no rule in KUBE-SERVICES names {address}:{port}")
    service = entry.group(1)
    hops = [Hop("PREROUTING, OUTPUT", "every new connection", "KUBE-SERVICES", 1.0),
            Hop("KUBE-SERVICES", f"to {address}, port {port}", service, 1.0)]  # fmt: skip
    left = 1.0
    for line in re.findall(rf"^-A {service} .*-j KUBE-SEP-.*$", rules, re.MULTILINE):
        chance = re.search(r"--probability ([\d.]+)", line)
        target = line.rpartition("-j ")[2].strip()
        share = left * (float(chance.group(1)) if chance else 1.0)
        left -= share
        match = f"statistic: random, {float(chance.group(1)):.2f}" if chance else "all that are left"
        hops.append(Hop(service, match, target, share))
        goal = re.search(rf"^-A {target} .*--to-destination ([\d.:]+)", rules, re.MULTILINE)
        if not goal:
            raise CheckFailed(f"the chain {target} has no destination")
        hops.append(Hop(target, "DNAT", goal.group(1), share))
    return hops


def rules(host: Host) -> str:
    """The nat table of a machine."""
    return host.run(["iptables-save", "-t", "nat"]).stdout


def owners(lab: Lab, address: str) -> list[str]:
    """The devices of any machine that carry an address (K65)."""
    return [
        f"{name}: {interface.name}"
        for name, host in lab.machines.items()
        for interface in facts.INTERFACES.read(host)
        if any(a.split("/")[0] == address for a in interface.addresses)
    ]


def balance(lab: Lab, address: str, requests: int) -> Counter[str]:
    """How many of `requests` each pod answered; each uses its own connection from one machine."""
    script = (
        'i=0; while [ $i -lt "$1" ]; do curl -sS -m 5 "http://$2/hostname.html" || echo failed; echo; i=$((i+1)); done'
    )
    answer = lab.control_plane.run(["sh", "-c", script, "balance", str(requests), address], timeout=120)
    return Counter(answer.lines)


def resolved(lab: Lab, name: str) -> list[str]:
    """The addresses that the cluster's DNS returns for a name, asked from a machine (K60)."""
    answer = lab.control_plane.run(["busybox", "nslookup", name, lab.profile.dns_address], check=False, timeout=15)
    after = answer.stdout.partition("Name:")[2]
    return sorted(set(re.findall(r"Address(?: \d+)?: ([\d.]+)", after)))


def plot(counted: Counter[str], low: float, high: float) -> Any:
    """A matplotlib figure: requests by pod, with the expected range of an even spread."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(8, 0.9 + 0.7 * len(counted)))
    names = sorted(counted)
    axes.barh(names, [counted[n] for n in names], color=PALETTE[0], label="answered")
    axes.axvspan(low, high, color=PALETTE[2], alpha=0.25, label="an even spread stays within")
    axes.set(title="Requests by pod", xlabel="requests", ylabel="pod")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncol=2)
    return fig


def follow(lab: Lab, address: str, port: int, endpoints: int, *, timeout: float = 20.0) -> list[Hop]:
    """The path of a connection on the control plane's machine, once kube-proxy has a rule for each endpoint."""
    from stackbook.core.waiting import until

    def complete() -> list[Hop]:
        hops = chain_of(rules(lab.control_plane), address, port)
        return hops if sum(h.match == "DNAT" for h in hops) == endpoints else []

    return until(complete, what=f"rules for {endpoints} endpoints of {address}", timeout=timeout, every=0.3,
                 tolerate=(CheckFailed,))  # fmt: skip


def by_pod(lab: Lab, counted: Counter[str]) -> dict[str, int]:
    """Counts for every pod behind myapp, including pods that answered nothing."""
    names = [p["metadata"]["name"] for p in lab.kube.pods(NAMESPACE, "app=myapp")]
    return {name: counted.get(name, 0) for name in names}


def even_range(requests: int, pods: int, *, alpha: float) -> tuple[float, float]:
    """The range of requests for one pod in an even spread, with error probability `alpha` (binomial quantiles)."""
    from scipy.stats import binom

    low, high = binom.ppf([alpha / 2, 1 - alpha / 2], requests, 1 / pods)
    return float(low), float(high)


def outline(hops: list[Hop]) -> list[dict[str, object]]:
    """The path of a connection without what differs between runs: addresses, and the hashes in chain names."""
    return [
        {
            "chain": "-".join(h.chain.split("-")[:2]),
            "what matches": re.sub(r"to [\d.]+,", "to the ClusterIP,", h.match),
            "share of connections": round(h.share, 3),
        }
        for h in hops
    ]
