"""The plot of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(data: dict[str, Any], rows: Sequence[tuple[str, float, float | None, float]], path: Path) -> None:
    """Save the plot of a benchmark's rows (see `figures.rows`) as a picture."""
    import matplotlib.pyplot as plt

    from stackbook.analysis.display import PALETTE, style_plots

    style_plots()
    fig, axes = plt.subplots(figsize=(9, 3.2))
    shown = rows[::-1]
    names = [name for name, *_ in shown]
    axes.barh(names, [seconds for _, seconds, *_ in shown], color=PALETTE[0], height=0.5, label="stackbook")
    known = [(name, floor) for name, _, floor, _ in shown if floor]
    axes.plot(
        [floor for _, floor in known],
        [name for name, _ in known],
        "o",
        color=PALETTE[1],
        markersize=10,
        label="bare commands",
    )
    axes.plot([row[3] for row in shown], names, "|", color=PALETTE[6], markersize=26, label="promised")
    axes.set(title=f"From nothing, warm cache, {data['machine']['processors']} processors", xlabel="seconds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncol=3)
    fig.savefig(path)
    plt.close(fig)
