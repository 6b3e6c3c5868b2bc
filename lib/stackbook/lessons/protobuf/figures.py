"""The plots of the chapter about protobuf. Sizes are in bytes, times in microseconds; each has a legend and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.lessons.protobuf.scalars import magnitudes, payload_sizes

_STYLE = {
    "int": {"color": "#D55E00", "linestyle": "-", "linewidth": 3.5},
    "uint": {"color": "#CC79A7", "linestyle": ":", "linewidth": 3.5},
    "sint": {"color": "#0072B2", "linestyle": "--", "linewidth": 2.5},
    "fixed": {"color": "#009E73", "linestyle": "-.", "linewidth": 2.5},
}
_JSON: dict[str, Any] = {"color": "#E69F00", "hatch": "//"}
_PROTOBUF: dict[str, Any] = {"color": "#0072B2", "hatch": ""}


def integer_sizes() -> Any:
    """The size of an integer's payload by its value: 32 bits on the left, 64 bits on the right."""
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(1, 2, figsize=(13, 4.6), sharey=True)
    for axes, bits in zip(panels, (32, 64), strict=True):
        for name, style in _STYLE.items():
            signed = name in ("int", "sint")
            most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
            values = magnitudes(bits, negative=signed, most=most)
            sizes = payload_sizes(f"{name}{bits}", values)
            axes.plot([_place(v) for v in values], sizes, label=f"{name}{bits}", drawstyle="steps-post", **style)
        mark = bits * 7 // 8
        axes.axvline(mark, color="#555555", linewidth=1)
        axes.text(mark - 0.6, 0.3, f"2^{mark}", ha="right", fontsize=12)
        ticks = [-bits + 1, -bits // 2, 0, bits // 2, bits]
        axes.set_xticks(ticks, [f"{'−' if t < 0 else ''}2^{abs(t)}" if t else "0" for t in ticks])
        axes.set(title=f"{bits}-bit integers", xlabel="value (each step doubles it)", ylim=(0, 11))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, frameon=False)
    panels[0].set_ylabel("payload (bytes)")
    fig.suptitle("int is costly for negatives, sint is not, fixed has one size")
    fig.tight_layout()
    return fig


def _place(value: int) -> float:
    """The position of a value on an axis where each step doubles it, on both sides of 0."""
    return value.bit_length() if value >= 0 else -((-value).bit_length())


def record_sizes(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Megabytes of all records, plain and after gzip; `rows` comes from `benchmark.sizes`."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(9, 3.6))
    labels = {"bytes": "as encoded", "gzip": "after gzip"}
    for index, (row, style) in enumerate(zip(rows, (_JSON, _PROTOBUF), strict=True)):
        places = [0.2 - 0.4 * index, 1.2 - 0.4 * index]
        values = [row[column] / 1e6 for column in labels]
        bars = axes.barh(places, values, height=0.36, label=row["format"], edgecolor="white", **style)
        axes.bar_label(bars, labels=[f"{v:.1f} MB" for v in values], padding=4, fontsize=12)
    axes.set_yticks([0, 1], list(labels.values()))
    axes.invert_yaxis()
    axes.set(title="100,000 access logs", xlabel="size (megabytes)", xlim=(0, rows[0]["bytes"] / 1e6 * 1.15))
    axes.legend(loc="lower right")
    return fig


def speeds(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Microseconds of processor time per record to encode and decode, by language; for `measured`, see `benchmark.ratios`."""
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(1, len(measured), figsize=(11, 4), sharey=False)
    for axes, (language, rows) in zip(panels, measured.items(), strict=True):
        for index, (name, style) in enumerate({"json": _JSON, "protobuf": _PROTOBUF}.items()):
            (row,) = [row for row in rows if row["format"] == name]
            values = [row[f"{what}_seconds"] / row["records"] * 1e6 for what in ("encode", "decode")]
            label = "JSON" if name == "json" else name
            places = [0.4 * index - 0.2, 0.4 * index + 0.8]
            bars = axes.bar(places, values, width=0.36, label=label, edgecolor="white", **style)
            axes.bar_label(bars, labels=[f"{v:.2f}" for v in values], padding=2, fontsize=12)
        axes.set_xticks([0, 1], ["encode", "decode"])
        axes.margins(y=0.18)
        axes.set(title=language, ylabel="µs of processor time per record")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower center", ncols=2, frameon=False, bbox_to_anchor=(0.5, -0.08))
    fig.suptitle("Processor time per record: lower is faster")
    fig.tight_layout()
    return fig
