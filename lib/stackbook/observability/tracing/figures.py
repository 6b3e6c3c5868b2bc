"""Plots of traces: a waterfall, who calls whom, how soon a span is visible, and what an outage lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.observability.tracing.trace_tree import Row, ordered

NODE = 7200
"""Area of a service's circle, in points squared; the name fits in."""


def waterfall(frame: pd.DataFrame, *, title: str) -> Any:
    """The spans of a trace over time, each below its parent; the caller's side is hatched, and a cross marks an error.

    Several traces are drawn one below the other, with a line between them.
    """
    import matplotlib.pyplot as plt

    rows = [row for _, trace in frame.groupby("trace_id", sort=False) for row in ordered(trace).to_dict("records")]
    zero = min(row["start"] for row in rows)
    apps = list(dict.fromkeys(row["app"] for row in rows))
    fig, axes = plt.subplots(figsize=(11, 1.4 + 0.42 * len(rows)))
    for place, row in enumerate(reversed(rows)):
        left, width = 1000 * (row["start"] - zero), 1000 * row["seconds"]
        hatch = "///" if row["kind"] == "client" else ""
        axes.barh(place, width, left=left, height=0.7, color=PALETTE[apps.index(row["app"]) % len(PALETTE)],
                  hatch=hatch, edgecolor="white")  # fmt: skip
        if row["error"]:
            axes.plot(left + width, place, "X", color=PALETTE[6], markersize=11)
        axes.annotate(f" {width:.1f} ms", (left + width, place), xytext=(7, 0), textcoords="offset points", va="center")
    between = [place for place in range(1, len(rows)) if rows[place]["trace_id"] != rows[place - 1]["trace_id"]]
    for number, place in enumerate([0, *between]) if between else ():
        if place:
            axes.axhline(len(rows) - place - 0.5, color=PALETTE[6], linewidth=1.5)
        axes.annotate(
            f"trace {number + 1}",
            (1, len(rows) - place - 0.62),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="top",
        )
    labels = ["    " * row["depth"] + _label(row) for row in rows]
    axes.set_yticks(range(len(rows)), labels[::-1], ha="left")
    axes.tick_params(axis="y", pad=_pad(labels), length=0)
    axes.grid(axis="y", visible=False)
    axes.set(
        title=title, xlabel="time since the first span, in ms", xlim=(0, (1.3 if between else 1.15) * _end(rows, zero))
    )
    return fig


def _label(row: Row) -> str:
    target = str(row["operation"]).partition(".")[0]
    return f"{row['app']} → {target}" if row["kind"] == "client" else str(row["app"])


def _pad(labels: list[str]) -> float:
    """The width in points of left-aligned labels, which show the tree's indentation."""
    return 8 + 6.6 * max(len(label) for label in labels)


def _end(rows: Sequence[Row], zero: float) -> float:
    return float(max(1000 * (row["start"] + row["seconds"] - zero) for row in rows))


def graph(edges: pd.DataFrame, *, title: str) -> Any:
    """Who calls whom, from left to right; each edge has the number of calls and the callee's median time."""
    import matplotlib.pyplot as plt
    import networkx as nx

    net = nx.DiGraph()
    for row in edges.to_dict("records"):
        net.add_edge(_short(row["caller"]), _short(row["callee"]), **{str(name): value for name, value in row.items()})
    for layer, names in enumerate(_layers(net)):
        for name in names:
            net.nodes[name]["layer"] = layer
    places = nx.multipartite_layout(net, subset_key="layer")
    fig, axes = plt.subplots(figsize=(12, 5))
    nx.draw_networkx_nodes(
        net, places, ax=axes, node_size=NODE, node_color="white", edgecolors=PALETTE[0], linewidths=2
    )
    nx.draw_networkx_labels(net, places, ax=axes, font_size=12)
    colors = [PALETTE[1] if data["errors"] else PALETTE[0] for _, _, data in net.edges(data=True)]
    nx.draw_networkx_edges(net, places, ax=axes, node_size=NODE, arrowsize=22, width=2, edge_color=colors)
    labels = {(a, b): f"{d['calls']} calls\n{d['milliseconds']:.1f} ms" for a, b, d in net.edges(data=True)}
    nx.draw_networkx_edge_labels(net, places, labels, ax=axes, font_size=12, rotate=False)
    axes.set_title(title)
    axes.margins(0.15, 0.3)
    axes.set_axis_off()
    return fig


def _short(service: str) -> str:
    return service.partition(".")[0]


def _layers(net: Any) -> list[list[str]]:
    """Put each service in the layer after its farthest caller; services that call in a circle share a layer."""
    import networkx as nx

    condensed = nx.condensation(net)
    return [
        sorted(name for part in parts for name in condensed.nodes[part]["members"])
        for parts in nx.topological_generations(condensed)
    ]


def seen_after(delays: Mapping[str, pd.Series], *, limit: float) -> Any:
    """The share of spans that a search finds a given time after their request ended, and the promised limit."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    for number, (label, values) in enumerate(delays.items()):
        ordered_values = np.sort(values.to_numpy())
        share = 100 * np.arange(1, len(ordered_values) + 1) / len(ordered_values)
        axes.step(np.concatenate([[0], ordered_values]), np.concatenate([[0], share]), where="post", linewidth=2.5,
                  color=PALETTE[number], linestyle=("-", "--", ":")[number % 3], label=label)  # fmt: skip
    axes.axvline(limit, color=PALETTE[6], linewidth=2)
    axes.annotate(
        f"promised: {limit:g} s", (limit, 5), xytext=(-18, 0), textcoords="offset points", rotation=90, fontsize=12
    )
    axes.set(
        title="How soon a trace is found", xlabel="time since the request ended, in s", ylabel="found, in % of the traces",
        ylim=(0, 104),
    )  # fmt: skip
    axes.legend(loc="lower right", bbox_to_anchor=(0.93, 0.02))
    return fig


def outage(sent: pd.DataFrame, *, killed: float, back: float) -> Any:
    """Requests per second with and without a trace, and the time during which Jaeger was down."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    second = sent["started"].astype(int)
    seconds = np.arange(0, int(second.max()) + 1)
    traced, lost = (
        second[flag].value_counts().reindex(seconds, fill_value=0) for flag in (sent["traced"], ~sent["traced"])
    )
    axes.bar(seconds + 0.5, traced, 0.9, color=PALETTE[0], label="with a trace")
    axes.bar(
        seconds + 0.5, lost, 0.9, bottom=traced, color=PALETTE[1], hatch="//", label="answered, but without a trace"
    )
    began = sent.attrs["began"]
    axes.axvspan(killed - began, back - began, color=PALETTE[7], alpha=0.35, zorder=0.5, label="Jaeger is down")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # the span is visible above the bars
    axes.set(title="Jaeger killed under traffic", xlabel="time in s", ylabel="requests a second")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=3)
    return fig
