"""REST with JSON compared with gRPC with protobuf: the same greeting and server process, in one run, alternately."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stackbook.lessons.grpc.processes import go_client, go_server

LOADS = {0: "a greeting (some 30 bytes)", 16384: "a greeting with 16 KiB of binary data"}
QUANTILES = ("p50", "p90", "p99", "p99.9")


def measure(*, seconds: float = 0.7, parallel: int = 8) -> list[dict[str, Any]]:
    """Throughput and latency quantiles (milliseconds) of both protocols under both loads.

    Client and server are in Go, on this machine's loopback; gRPC has one connection, REST one per caller. After a warm-up,
    each is measured three times, alternately.

    Args:
        seconds: the length of one measurement.
        parallel: the number of callers at once.
    """
    with go_server("-quiet", "-rest-address", "127.0.0.1:0") as server:
        url = f"http://{server.rest}/v1/hello"
        flags = ("-bench", url, "-bench-time", f"{seconds}s", "-parallel", str(parallel))
        rows: list[dict[str, Any]] = json.loads(go_client("-target", server.address, *flags, timeout=120).stdout)
        return rows


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """GRPC relative to REST, by load: more than 1 is better for throughput, less than 1 for latency."""
    out = []
    for padding, name in LOADS.items():
        by = {row["protocol"]: row for row in rows if row["padding"] == padding}
        grpc, rest = by["gRPC"], by["REST"]
        row: dict[str, Any] = {"load": name, "throughput": grpc["calls_per_second"] / rest["calls_per_second"]}
        for quantile in QUANTILES:
            row[f"latency {quantile}"] = grpc["latency_ms"][quantile] / rest["latency_ms"][quantile]
        out.append(row)
    return out


def figure(rows: Sequence[dict[str, Any]]) -> Any:
    """A matplotlib figure: throughput left, latency quantiles right (milliseconds, logarithmic)."""
    import matplotlib.pyplot as plt

    fig, (left, *rights) = plt.subplots(1, 1 + len(LOADS), figsize=(13, 4.6), width_ratios=[1.2, 1, 1])
    styles: dict[str, dict[str, Any]] = {
        "REST": {"color": "#E69F00", "hatch": "//"},
        "gRPC": {"color": "#0072B2", "hatch": ""},
    }
    for index, (protocol, style) in enumerate(styles.items()):
        values = [
            r["calls_per_second"] / 1000 for p in LOADS for r in rows if (r["protocol"], r["padding"]) == (protocol, p)
        ]
        places = [i + 0.4 * index - 0.2 for i in range(len(LOADS))]
        name = {"REST": "REST, JSON", "gRPC": "gRPC, protobuf"}[protocol]
        bars = left.bar(places, values, width=0.36, label=name, edgecolor="white", **style)
        left.bar_label(bars, labels=[f"{v:.1f}" for v in values], padding=2, fontsize=12)
    left.set_xticks(range(len(LOADS)), ["small", "16 KiB binary"])
    left.set(title="Throughput: more is better", ylabel="thousand calls per second")
    left.margins(y=0.15)
    for axes, (padding, name) in zip(rights, {0: "small", 16384: "16 KiB binary"}.items(), strict=True):
        for protocol, marker in (("REST", "o"), ("gRPC", "s")):
            (row,) = [r for r in rows if (r["protocol"], r["padding"]) == (protocol, padding)]
            axes.plot(QUANTILES, [row["latency_ms"][q] for q in QUANTILES], marker=marker, linewidth=2,
                      color=styles[protocol]["color"], linestyle="--" if protocol == "REST" else "-")  # fmt: skip
        axes.set(title=f"Latency, {name}", xlabel="quantile", yscale="log", ylabel="milliseconds", ylim=(0.1, 300))
        axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    fig.legend(
        *left.get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False, bbox_to_anchor=(0.5, -0.08)
    )
    fig.tight_layout()
    return fig
