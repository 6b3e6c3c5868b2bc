"""The panels that Grafana would show: golden signals, histograms, resources, as matplotlib figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.dialects import Vocabulary

_STYLES = ("-", "--", ":", "-.")
USAGE = {
    "memory": 'sum by (namespace, pod, container) (container_memory_working_set_bytes{container!="",container!="POD"})',
    "cpu": 'sum by (namespace, pod, container) (rate(container_cpu_usage_seconds_total{container!="",container!="POD"}[30s]))',
}


def signals(prometheus: Prometheus, words: Vocabulary, *, start: float, end: float, step: float = 5.0) -> pd.DataFrame:
    """Rate (per s), errors (share of 5xx) and latency quantiles (s) by service and version over time."""
    window = 3 * step
    rates = words.plain(prometheus.over(words.fill(words.rate, window=window), start=start, end=end, step=step))
    rates["failed"] = rates["value"].where(rates["status"] >= 500, 0.0)
    key = ["service", "version", "timestamp"]
    found = rates.groupby(key, as_index=False)[["value", "failed"]].sum()
    found = found.rename(columns={"value": "rate"})
    found["errors"] = (found["failed"] / found["rate"].where(found["rate"] > 0)).fillna(0.0)
    for quantile in (0.5, 0.95, 0.99):
        query = words.fill(words.latency, window=window, quantile=quantile)
        answer = words.plain(prometheus.over(query, start=start, end=end, step=step))
        answer = answer.assign(**{f"p{100 * quantile:.0f}": answer["value"] / 1000})[[*key, f"p{100 * quantile:.0f}"]]
        found = found.merge(answer, on=key, how="left")
    return found.drop(columns="failed")


def golden(table: pd.DataFrame, *, services: tuple[str, ...], title: str) -> Any:
    """Three panels over time: requests per second, share of errors, latency (95 %), a line per service and version."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(3, 1, figsize=(9, 10), sharex=True)
    table = table[table["service"].isin(services)]
    start = table["timestamp"].min()
    for number, ((service, version), part) in enumerate(table.groupby(["service", "version"])):
        style = {
            "color": PALETTE[number % 7],
            "linestyle": _STYLES[number % 4],
            "linewidth": 2,
            "label": f"{service} {version}",
        }
        seconds = part["timestamp"] - start
        axes[0].plot(seconds, part["rate"], **style)
        axes[1].plot(seconds, 100 * part["errors"], **style)
        axes[2].plot(seconds, 1000 * part["p95"], **style)
    axes[0].set(title=title, ylabel="requests per s")
    axes[1].set(ylabel="answered with 5xx in %", ylim=(-2, max(10.0, 110 * float(table["errors"].max()))))
    axes[2].set(ylabel="95 % are faster than, ms\n(logarithmic)", xlabel="time in s", yscale="log")
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def usage(prometheus: Prometheus, *, at: float | None = None) -> pd.DataFrame:
    """What each container uses: namespace, pod, container, memory (bytes in use), cpu (processors, over 30 s)."""
    parts = {name: prometheus.query(query, at=at) for name, query in USAGE.items()}
    key = ["namespace", "pod", "container"]
    frames = [part.rename(columns={"value": name})[[*key, name]] for name, part in parts.items() if not part.empty]
    if not frames:
        return pd.DataFrame(columns=[*key, *USAGE])
    found = frames[0]
    for frame in frames[1:]:
        found = found.merge(frame, on=key, how="outer")
    return found.reindex(columns=[*key, *USAGE])


def resources(table: pd.DataFrame, *, title: str) -> Any:
    """Memory by workload, with the sidecar's part separate, largest at the top."""
    import matplotlib.pyplot as plt

    named = table.assign(
        workload=table["pod"].str.replace(r"(-[a-z0-9]{8,10})?-[a-z0-9]{5}$", "", regex=True),
        part=table["container"].map(lambda c: "sidecar" if c == "istio-proxy" else "application"),
    )
    sums = named.pivot_table(index="workload", columns="part", values="memory", aggfunc="sum", fill_value=0) / 2**20
    for part in ("application", "sidecar"):
        if part not in sums:
            sums[part] = 0.0
    sums = sums.assign(total=sums.sum(axis=1)).sort_values("total")
    fig, axes = plt.subplots(figsize=(9, 1.5 + 0.36 * len(sums)))
    axes.barh(sums.index, sums["application"], color=PALETTE[0], label="application")
    axes.barh(sums.index, sums["sidecar"], left=sums["application"], color=PALETTE[4], hatch="//", label="sidecar")
    axes.set(title=title, xlabel="memory in use in MiB", xlim=(0, 1.08 * float(sums["total"].max())))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower right")
    return fig


def bucket_limits(prometheus: Prometheus, words: Vocabulary, value: float) -> tuple[float, float]:
    """The limits in ms of the histogram bucket that contains a latency of `value` ms."""
    found = prometheus.query(f"group by (le) ({words.buckets})")
    limits = sorted(float(le) for le in found["le"] if le != "+Inf")
    above = next((limit for limit in limits if value <= limit), float("inf"))
    return max([0.0, *(limit for limit in limits if limit < value)]), above


def quantiles(named: Mapping[str, Mapping[str, float]], *, title: str) -> Any:
    """Quantiles in ms by name, as bars side by side on a logarithmic axis."""
    import matplotlib.pyplot as plt

    frame = pd.DataFrame(named)
    fig, axes = plt.subplots()
    frame.plot.bar(ax=axes, color=list(PALETTE[: len(frame.columns)]), rot=0, logy=True)
    for container, hatch in zip(axes.containers, ("", "//", ".."), strict=False):
        for bar in container:
            bar.set_hatch(hatch)
    axes.set(title=title, ylabel="latency in ms")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(axis="x", visible=False)
    return fig


def delays(named: Mapping[str, list[float]], *, limit: float, title: str) -> Any:
    """How long it took until something was visible, one point per try, with the promised limit."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(9, 1.6 + 0.8 * len(named)))
    for place, (name, values) in enumerate(named.items()):
        axes.plot(values, [place] * len(values), "o", markersize=9, alpha=0.8, color=PALETTE[place], label=name)
    axes.axvline(limit, color=PALETTE[6], linestyle="--", label=f"promised: {limit:g} s")
    axes.set_yticks(range(len(named)), list(named))
    axes.set(title=title, xlabel="seconds until it is seen", xlim=(0, None), ylim=(-0.6, len(named) - 0.4))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
