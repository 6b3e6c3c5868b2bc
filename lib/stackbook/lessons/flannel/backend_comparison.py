"""Comparing flannel's backends: switching them for real, measuring between pods, and restoring the first one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.cluster import flannel
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.lessons.flannel import packet_path
from stackbook.machines import facts
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

_TCP = 52
"""Bytes of the headers of IPv4 (20), TCP (20) and its time stamps (12) in each packet."""


def manifest(lab: Lab, backend: str) -> str:
    """Flannel's manifest for this lab, with a backend."""
    text = Path(lab.artifacts.path("kube-flannel.yml")).read_text(encoding="utf-8")
    return flannel.manifest(
        text,
        network=lab.profile.pod_cidr,
        backend=backend,
        images={name: lab.images.reference(name) for name in ("flannel", "flannel-cni-plugin")},
        cni_version=lab.images.environment("flannel-cni-plugin").get("CNI_SPEC_VERSION", ""),
        preloaded=lab.profile.target != "cluster",
    )


def usable(lab: Lab) -> list[str]:
    """The backends that these machines can run: udp needs a TUN device."""
    tun = all(h.run(["test", "-c", "/dev/net/tun"], check=False).ok for h in lab.machines.values())
    return [b for b in flannel.BACKENDS if b != "udp" or tun]


@contextmanager
def restored(lab: Lab) -> Iterator[str]:
    """Restore the profile's backend after the block, whatever happens in it."""
    wanted = lab.profile.flannel_backend
    try:
        yield wanted
    finally:
        if flannel.running_backend(lab.kube) != wanted or not all(
            flannel.routed(h, wanted) for h in lab.machines.values()
        ):
            flannel.switch(lab.kube, lab.machines, manifest(lab, wanted), wanted)
        lab.kube.wait_rollout(flannel.NAMESPACE, flannel.DAEMONSET, timeout=300)
        # While pods were unreachable, their probes failed, and a Service without ready pods refuses all connections.
        lab.kube.wait_pods("kube-system", "k8s-app=kube-dns", timeout=300)


def compare(lab: Lab, step: Step, *, seconds: int, pings: int) -> pd.DataFrame:
    """Measure every usable backend between two pods; the profile's own comes last.

    Args:
        lab: the lab, with the walkers running.
        step: the step that shows the progress.
        seconds: the length of one throughput measurement.
        pings: the packets of one latency measurement.

    Returns:
        One row per backend: backend, device, mtu (bytes), gbit_per_s, rtt_ms_median, rtt_ms_p99.
    """
    rows = []
    wanted = lab.profile.flannel_backend
    order = [wanted, *[b for b in usable(lab) if b != wanted]]
    with restored(lab):
        for backend in order:
            step.progress(f"measuring {backend}")
            if flannel.running_backend(lab.kube) != backend:
                flannel.switch(lab.kube, lab.machines, manifest(lab, backend), backend)
            rows.append(measure(lab, backend, seconds=seconds, pings=pings))
    return pd.DataFrame(rows)


def measure(lab: Lab, backend: str, *, seconds: int, pings: int) -> dict[str, Any]:
    """Throughput and latency between the pods of the first two machines, with the current backend."""
    ends = list(packet_path.renew(lab).values())
    source, target = ends[0], ends[1]
    here, there = lab.machines[source.node], lab.machines[target.node]
    packet_path.inside(here, source, "ping", "-c", "1", "-W", "5", target.address)
    said = packet_path.inside(here, source, "ping", "-i", "0.02", "-c", str(pings), target.address, timeout=60).stdout
    times = pd.Series(packet_path.rtt_milliseconds(said))
    mtu = json.loads(packet_path.inside(here, source, "ip", "-j", "link", "show", "eth0").stdout)[0]["mtu"]
    return {
        "backend": backend,
        "device": flannel.DEVICES[backend] or "none: the machines' own",
        "mtu": int(mtu),
        "gbit_per_s": throughput(here, source, there, target, seconds=seconds),
        "rtt_ms_median": float(times.median()),
        "rtt_ms_p99": float(times.quantile(0.99)),
    }


def throughput(here: Host, source: packet_path.End, there: Host, target: packet_path.End, *, seconds: int) -> float:
    """Received gigabits per second, by iperf3; repeated if the server ended early or was not ready yet.

    Raises:
        WaitTimeout: three measurements failed; with iperf3's last message.
    """

    def measured() -> float:
        packet_path.inside(there, target, "iperf3", "-s", "-1", "-D")
        until(lambda: "LISTEN" in packet_path.inside(there, target, "ss", "-Hltn", "sport = :5201").stdout,
              what=f"iperf3 to listen in {target.pod}", timeout=60, every=0.1)  # fmt: skip
        argv = ["iperf3", "-c", target.address, "-t", str(seconds), "-J"]
        return received(packet_path.inside(here, source, *argv, check=False, timeout=seconds + 30))

    return until(measured, what=f"iperf3 to measure from {source.pod} to {target.pod}", timeout=3 * seconds + 60,
                 tolerate=(CheckFailed,))  # fmt: skip


def received(answer: Result) -> float:
    """Received gigabits per second, from iperf3's JSON.

    Raises:
        CheckFailed: it measured nothing; with its reason.
    """
    try:
        data = json.loads(answer.stdout)
        return float(data["end"]["sum_received"]["bits_per_second"]) / 1e9
    except (ValueError, KeyError, TypeError):
        said = re.search(r'"error":\s*"([^"]*)"', answer.stdout)
        reason = said[1] if said else answer.stderr.strip() or "no output"
        raise CheckFailed(f"iperf3 measured nothing: {reason}") from None


def by_headers(frame: pd.DataFrame) -> dict[str, float]:
    """The throughput of each backend in percent of host-gw's, if only the longer headers made a difference.

    A packet carries its MTU minus the headers of TCP over IPv4 (RFC 9293, RFC 7323). Encapsulation makes the MTU smaller.
    """
    mtu = dict(zip(frame["backend"], frame["mtu"], strict=True))
    whole = mtu.get("host-gw", max(mtu.values()))
    return {backend: 100 * (own - _TCP) / (whole - _TCP) for backend, own in mtu.items()}


def plot(frame: pd.DataFrame, *, yours: Mapping[str, float] | None = None) -> Any:
    """A matplotlib figure: throughput and latency of the backends side by side.

    Args:
        frame: the measurements, from `compare`.
        yours: a learner's prediction of each backend's throughput, in percent of host-gw's.
    """
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.bar(frame["backend"], frame["gbit_per_s"], color=PALETTE[: len(frame)])
    if "host-gw" in set(frame["backend"]):
        whole = float(frame.set_index("backend")["gbit_per_s"]["host-gw"]) / 100
        _mark(
            left,
            frame,
            {name: whole * share for name, share in by_headers(frame).items()},
            "_",
            "theory: headers alone",
        )
        _mark(left, frame, {name: whole * share for name, share in (yours or {}).items()}, "D", "your prediction")
        left.set_ylim(0, 1.3 * left.get_ylim()[1])
        left.legend(loc="upper right")
    left.set(title="Throughput, pod to pod", ylabel="Gbit/s", xlabel="backend")
    spread = frame["rtt_ms_p99"] - frame["rtt_ms_median"]
    right.bar(
        frame["backend"],
        frame["rtt_ms_median"],
        color=PALETTE[: len(frame)],
        yerr=[[0] * len(frame), spread],
        capsize=6,
    )
    right.set(title="Round trip, median (bar) and 99 % (line)", ylabel="milliseconds", xlabel="backend")
    fig.tight_layout()
    return fig


def _mark(axes: Any, frame: pd.DataFrame, values: Mapping[str, float], mark: str, label: str) -> None:
    """Mark a value above each backend that has one."""
    places = [(place, values[name]) for place, name in enumerate(frame["backend"]) if name in values]
    if places:
        axes.plot(*zip(*places, strict=True), mark, markersize=14 if mark == "_" else 9, mew=3 if mark == "_" else 2, mfc="none",
                  linestyle="none", color=PALETTE[6 if mark == "_" else 3], label=label)  # fmt: skip


def mtus(lab: Lab) -> list[dict[str, Any]]:
    """MTU of the machine's interface, of flannel's device and of subnet.env, and the difference (K112)."""
    rows = []
    for name, host in lab.machines.items():
        interfaces = {i.name: i for i in facts.INTERFACES.read(host)}
        device = flannel.DEVICES[lab.profile.flannel_backend]
        uplink = next(r["dev"] for r in facts.ROUTES.read(host) if r.get("dst") == "default")
        env = facts.SUBNET_ENV.read(host)
        rows.append(
            {
                "machine": name,
                "interface": interfaces[uplink].mtu,
                "flannel's device": interfaces[device].mtu if device else interfaces[uplink].mtu,
                "FLANNEL_MTU": int(env.get("FLANNEL_MTU", 0)),
                "taken by the envelope": interfaces[uplink].mtu - int(env.get("FLANNEL_MTU", 0)),
            }
        )
    return rows
