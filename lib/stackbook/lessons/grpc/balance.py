"""Which server answers: calls counted by server, for each client policy, without a mesh."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.core.waiting import pause
from stackbook.lessons.grpc import stubs
from stackbook.lessons.grpc.client import channel
from stackbook.lessons.grpc.processes import Server, counted, go_server


@dataclass(frozen=True)
class Count:
    """How many calls each server answered."""

    client: str
    policy: str
    calls: dict[str, int]

    @property
    def fair(self) -> bool:
        """Whether each server answered at least nine tenths of an equal share of three."""
        return len(self.calls) == 3 and min(self.calls.values()) >= 0.9 * sum(self.calls.values()) / 3

    @property
    def row(self) -> dict[str, Any]:
        """A row of a table."""
        return {"client": self.client, "policy": self.policy, "servers that answered": len(self.calls)}


def compare(*, calls: int = 300, servers: int = 3) -> list[Count]:
    """Count calls with pick_first (gRPC's default) and round_robin over several servers, with the clients in Go and Python."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(go_server("-quiet", pod=f"server {i + 1}")) for i in range(servers)]
        addresses = ",".join(server.address for server in running)
        found = []
        for policy in ("pick_first", "round_robin"):
            wanted = servers if policy == "round_robin" else 1
            found.append(Count("Go", policy, _go(addresses, policy, calls, wanted)))
            found.append(Count("Python", policy, _python(f"ipv4:{addresses}", policy, calls, wanted)))
        return found


def _go(addresses: str, policy: str, calls: int, servers: int) -> dict[str, int]:
    wanted = ("-target", f"static:{addresses}", "-balancer", policy, "-calls", str(calls), "-interval", "200us")
    return dict(sorted(counted(*wanted, "-servers", str(servers), "-wait-for-ready")["by_pod"].items()))


def _python(target: str, policy: str, calls: int, servers: int) -> dict[str, int]:
    with channel(target, options=(("grpc.lb_policy_name", policy),)) as opened:
        stub = stubs.stub(opened)
        seen: set[str] = set()
        end = time.monotonic() + 10
        while (
            len(seen) < servers and time.monotonic() < end
        ):  # until every connection is established; these calls are not counted
            seen.add(stub.SayHello(stubs.request(), timeout=5, wait_for_ready=True).server.pod)
            pause(0.001)
        pods = Counter(stub.SayHello(stubs.request(), timeout=5).server.pod for _ in range(calls))
        return dict(sorted(pods.items()))


def connections(server: Server) -> int:
    """How many TCP connections to the server's port exist in the kernel's table, which `ss -tn` shows.

    Columns of /proc/net/tcp: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html; 01 is ESTABLISHED.
    """
    found = 0
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text("ascii").splitlines()[1:]:
            remote, state = line.split()[2:4]
            found += int(remote.rpartition(":")[2], 16) == server.port and state == "01"
    return found


def figure(counts: Sequence[Count], *, title: str = "Who answers 300 calls") -> Any:
    """A matplotlib figure: one bar per client and policy, divided by server."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(9.5, 0.75 * len(counts) + 1.6))
    pods = sorted({pod for count in counts for pod in count.calls})
    colours, hatches = ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), ("", "//", "..", "xx")
    labels = [f"{count.client}, {count.policy}" for count in counts]
    left = [0] * len(counts)
    for pod, colour, hatch in zip(pods, colours, hatches, strict=False):
        values = [count.calls.get(pod, 0) for count in counts]
        bars = axes.barh(labels, values, left=left, label=pod, color=colour, hatch=hatch, edgecolor="white")
        texts = [str(v) if v else "" for v in values]
        axes.bar_label(bars, labels=texts, label_type="center", fontsize=12,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9})  # fmt: skip
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set(title=title, xlabel="calls")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return fig
