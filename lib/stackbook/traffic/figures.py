"""Plots of counted requests, with titles, units and legends that a projector can show, and colours for the colour-blind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.analysis.statistics import Judged, ShareTest
from stackbook.traffic.canary import Change

_MARKS = ("o", "s", "^", "D", "v", "P")


def shares(
    checks: Mapping[str, Judged], *, title: str, predicted: Collection[str] | None = None, small: float | None = None,
    yours: Mapping[str, float] | None = None,
) -> Any:  # fmt: skip
    """Observed shares with their intervals, and the predictions, one row each.

    Args:
        checks: the tests, by name.
        title: the plot's title.
        predicted: the names of the tests whose claim is a prediction; None for all of them.
        small: if shares differ widely, the smallest share in % that a logarithmic axis shows; None for a linear axis.
        yours: a learner's own predictions in %, by the names of the tests.
    """
    import matplotlib.pyplot as plt

    rows = [(name, check) for name, check in checks.items() if isinstance(check, ShareTest)]
    fig, axes = plt.subplots(figsize=(9, 1.2 + 0.5 * len(rows)))
    marked: str | None = "predicted"
    for place, (name, test) in enumerate(reversed(rows)):
        low, middle, high = (max(100 * value, small or 0) for value in (test.low, test.estimate, test.high))
        label = None if place else "observed, with its interval"
        axes.errorbar(
            middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color=PALETTE[0], capsize=5, label=label
        )
        if predicted is None or name in predicted:
            axes.plot(100 * test.claim, place, "|", markersize=22, mew=3, color=PALETTE[1], label=marked)
            marked = None
    own = [(place, (yours or {}).get(name)) for place, (name, _) in enumerate(reversed(rows))]
    if guessed := [(place, max(share, small or 0)) for place, share in own if share is not None]:
        places, values = zip(*guessed, strict=True)
        axes.plot(values, places, "D", markersize=9, mfc="none", mew=2, color=PALETTE[3], label="your prediction")
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.set(title=title, xlabel="share of requests in %", xlim=(-3, 103), ylim=(-0.6, len(rows) - 0.4))
    if small:
        axes.set(xscale="log", xlim=(0.9 * small, 115), xlabel="share of requests in % (logarithmic)")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def timeline(staged: pd.DataFrame, changes: Sequence[Change], *, width: float = 0.5) -> Any:
    """Requests per second by version over time, failures, and when each stage was set."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(10, 4.5))
    slot = (staged["started"] // width) * width
    whole = sorted(s for s in slot.unique() if s + width <= staged["started"].max())  # the last second is incomplete
    versions = sorted(v for v in staged["version"].unique() if v)
    for number, version in enumerate(versions):
        counts = staged[staged["version"] == version].groupby(slot).size().reindex(whole, fill_value=0)
        style: dict[str, Any] = {"marker": _MARKS[number % len(_MARKS)], "color": PALETTE[number % len(PALETTE)]}
        axes.plot(counts.index.to_numpy(), counts.to_numpy() / width, label=version, **style)
    failed = staged[staged["status"] != 200]
    axes.plot(failed["started"], np.zeros(len(failed)), "x", color=PALETTE[6], label=f"failed: {len(failed)}")
    top = 1.2 * axes.get_ylim()[1]
    for change in changes:
        at = max(0.0, change.at - staged.attrs["began"])
        axes.axvline(at, linestyle="--", color=PALETTE[6], linewidth=1)
        axes.annotate(change.label, (at, top), textcoords="offset points", xytext=(4, -14), fontsize=12)
    axes.set(
        title="Requests by the version that served them",
        xlabel="time in s",
        ylabel="requests per s",
        ylim=(None, top),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def pods(counts: Mapping[str, Mapping[str, int]], *, title: str) -> Any:
    """Requests per pod, one group of bars for each load balancing mode; pods are numbered by name."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    many = max(len(by_pod) for by_pod in counts.values())
    for number, (label, by_pod) in enumerate(counts.items()):
        places = np.arange(many) + 0.8 * (number + 0.5) / len(counts) - 0.4
        values = [by_pod[name] for name in sorted(by_pod)]
        axes.bar(
            places[: len(values)],
            values,
            0.75 / len(counts),
            color=PALETTE[number],
            hatch=("", "//", "..")[number % 3],
            label=label,
        )
    axes.set_xticks(range(many), [f"pod {n + 1}" for n in range(many)])
    axes.set(title=title, ylabel="requests")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def latencies(groups: Mapping[str, pd.Series], *, title: str, limits: Mapping[str, float] | None = None) -> Any:
    """The share of requests that took at least a given time, on a logarithmic axis; `limits` are marked by name."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    for number, (label, values) in enumerate(groups.items()):
        ordered = np.sort(values.to_numpy())
        share = 100 * (1 - np.arange(len(ordered)) / len(ordered))
        axes.step(
            ordered,
            share,
            where="post",
            color=PALETTE[number],
            linestyle=("-", "--", ":")[number % 3],
            linewidth=2.5,
            label=label,
        )
    for name, value in (limits or {}).items():
        axes.axvline(value, color=PALETTE[6], linewidth=1)
        axes.annotate(name, (value, 2), textcoords="offset points", xytext=(-16, 0), fontsize=12, rotation=90)
    axes.set(
        title=title,
        xlabel="time until the answer was read, in s (logarithmic)",
        ylabel="share at least as slow, in %",
        xscale="log",
    )
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    return fig


def effect(table: pd.DataFrame, *, limit: float) -> Any:
    """How soon each change took effect, with the median and the promised limit."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    for number, (column, label) in enumerate(
        (("effective", "last request of the old rule"), ("reported", "istiod reports all proxies in step"))
    ):
        axes.plot(table["change"], table[column], _MARKS[number], color=PALETTE[number], markersize=9, label=label)
        axes.axhline(table[column].median(), color=PALETTE[number], linestyle=("-", "--")[number], linewidth=1.5)
    axes.axhline(limit, color=PALETTE[6], linewidth=2)
    axes.annotate(f"promised: {limit:g} s", (1, limit), textcoords="offset points", xytext=(0, 5), fontsize=12)
    axes.set(
        title="From a change to its effect; lines are medians",
        xlabel="number of the change",
        ylabel="time in s (logarithmic)",
        yscale="log",
        ylim=(None, 2 * limit),
    )
    axes.legend(loc="best")
    return fig


def statuses(frame: pd.DataFrame, change: Change, *, title: str) -> Any:
    """Each request by start and duration, its status as a mark, and when a rule was changed."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    for number, (status, part) in enumerate(frame.groupby("status")):
        style: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "alpha": 0.7, "label": f"status {status}"}
        axes.plot(part["started"], part["seconds"], _MARKS[number % len(_MARKS)], **style)
    axes.axvline(change.at - frame.attrs["began"], linestyle="--", color=PALETTE[6], label=change.label)
    axes.set(title=title, xlabel="start of the request, in s", ylabel="duration in s (logarithmic)", yscale="log")
    axes.legend(loc="best")
    return fig
