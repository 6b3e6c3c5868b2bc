"""A picture of what Prometheus asks for metrics, by kind of target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw

if TYPE_CHECKING:
    import pandas as pd


def scraping(targets: pd.DataFrame, *, seconds: int) -> Picture:
    """Prometheus and its targets by job, with the number of targets.

    Args:
        targets: what `Prometheus.targets` returns, with the columns `job` and `health`.
        seconds: the time between two scrapes.
    """
    boxes = []
    for job, rows in sorted(targets.groupby("job")):
        up = int((rows["health"] == "up").sum())
        words = f"{up} target{'s' if up != 1 else ''}, up" if up == len(rows) else f"{up} of {len(rows)} targets are up"
        boxes.append(Box(str(job), (words,), name=f"job {job}", colour=2 if up == len(rows) else 1))
    server = Box("Prometheus", (f"asks each target every {seconds} s", "keeps the samples"), colour=0)
    asked = Box("what is scraped", rows=tuple(tuple(boxes[at : at + 2]) for at in range(0, len(boxes), 2)))
    arrows = [
        Arrow("this notebook", "Prometheus", "PromQL", colour=0), Arrow("Prometheus", "what is scraped", "GET /metrics"),
    ]  # fmt: skip
    return draw([[Box("this notebook")], [server], [asked]], arrows, title="Prometheus asks, and the targets answer")
