"""A plot of the orders that were confirmed while parts of the shop were killed."""

from __future__ import annotations

from typing import Any

from stackbook.analysis.display import PALETTE
from stackbook.lessons.ecosystem.shop.accounting import Run


def confirmed(run: Run) -> Any:
    """The number of confirmed orders over time, with a line at each kill."""
    import matplotlib.pyplot as plt

    moments = sorted(run.times)
    fig, axes = plt.subplots()
    axes.plot(moments, range(1, len(moments) + 1), color=PALETTE[0], linewidth=2.5, label="confirmed orders")
    for number, (part, at) in enumerate(run.killed.items()):
        axes.axvline(at, color=PALETTE[(1, 2, 3, 6)[number % 4]], linewidth=2, linestyle=("--", ":", "-.", "-")[number % 4],
                     label=f"{part} is killed")  # fmt: skip
    axes.set(title="Orders while parts of the shop are killed", xlabel="time in s", ylabel="confirmed orders")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
