"""Plots of logs: what Kibana's Discover draws, how soon a line is found, and how numbered lines arrive over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stackbook.analysis.display import PALETTE

_HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def bars(counts: pd.DataFrame, *, seconds: int, title: str) -> Any:
    """Lines in each span of time, a panel with its own scale for each value; `counts` comes from `queries.histogram`."""
    import matplotlib.pyplot as plt

    table = counts.pivot_table(index="time", columns="value", values="lines", aggfunc="sum", fill_value=0)
    table = table[table.sum().sort_values(ascending=False).index]
    begin = table.index.min() if len(table) else 0.0
    fig, panels = plt.subplots(
        max(1, len(table.columns)), 1, figsize=(9, 1.6 + 0.95 * len(table.columns)), sharex=True, squeeze=False
    )
    for number, (name, axes) in enumerate(zip(table.columns, panels[:, 0], strict=False)):
        axes.bar(table.index - begin, table[name], 0.9 * seconds, align="edge", color=PALETTE[number % len(PALETTE)],
                 hatch=_HATCHES[number % len(_HATCHES)], edgecolor="white")  # fmt: skip
        axes.set_ylabel(str(name), rotation=0, ha="right", va="center")
        axes.set(ylim=(0, 1.15 * max(1, table[name].max())), yticks=[0, int(table[name].max())])
    panels[0, 0].set(title=title)
    panels[-1, 0].set(xlabel=f"time in s; lines in {seconds} s")
    return fig


def latency(found: pd.DataFrame, *, limit: float, theory: float | None = None, yours: float | None = None) -> Any:
    """How soon each line was found, by machine, with the promised limit.

    Args:
        found: what `loss_accounting.observation` has returned.
        limit: the promised time, in seconds.
        theory: the longest time by the intervals of shipper and index, in seconds.
        yours: a learner's prediction of the longest time, in seconds.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    begin = found["time"].min()
    for number, (node, part) in enumerate(found.groupby("node")):
        axes.plot(
            part["time"] - begin,
            part["latency"],
            "os^Dv"[number % 5],
            color=PALETTE[number % len(PALETTE)],
            label=str(node),
        )
    axes.axhline(
        found["latency"].median(), color=PALETTE[0], linewidth=1.5, label=f"median {found['latency'].median():.1f} s"
    )
    axes.axhline(limit, color=PALETTE[6], linewidth=2)
    axes.annotate(f"promised: {limit:.1f} s", (0, limit), textcoords="offset points", xytext=(0, 5), fontsize=12)
    for value, label, style in ((theory, "theory: at most {:g} s", "--"), (yours, "your prediction: {:g} s", ":")):
        if value is not None:
            axes.axhline(value, color=PALETTE[3], linestyle=style, linewidth=2, label=label.format(value))
    axes.set(title="From the moment a line is written until a search finds it", xlabel="when it was written, in s",
             ylabel="time in s", ylim=(0, 1.25 * max(limit, yours or 0)))  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def delivery(written: pd.DataFrame, seen: Sequence[tuple[float, int]], events: Sequence[tuple[float, str]]) -> Any:
    """Lines written and lines found over time, with the events of that time.

    Args:
        written: see `loss_accounting.arrived`.
        seen: Unix time, and how many lines a search found then.
        events: Unix time, and what was done.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    times = np.sort(written["time"].to_numpy())
    begin = times[0]
    axes.step(
        times - begin, np.arange(1, len(times) + 1), where="post", color=PALETTE[0], linewidth=2.5, label="written"
    )
    axes.step([at - begin for at, _ in seen], [count for _, count in seen], where="post", color=PALETTE[1], linestyle="--",
              linewidth=2.5, label="found by a search")  # fmt: skip
    for number, (at, label) in enumerate(events):
        axes.axvline(
            at - begin, color=PALETTE[2 + number % 5], linewidth=2, linestyle=("-.", ":", "-")[number % 3], label=label
        )
    axes.set(title="Numbered lines from every machine", xlabel="time in s", ylabel="lines")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
