"""The figures of a benchmark: saved in bench/, put into the README."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
from pathlib import Path
from typing import Any

from stackbook.app import readme_figures
from stackbook.app.benchmark.drawing import draw
from stackbook.app.benchmark.marks import BOOKINFO, PROMISED
from stackbook.app.benchmark.measuring import RATE
from stackbook.artifacts.catalogue_loader import load
from stackbook.core import paths
from stackbook.lab.step import now
from stackbook.machines.facts import MEMORY, OS_RELEASE
from stackbook.machines.transports import LocalHost

FOLDER = paths.checkout() / "bench"


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def write(floors: list[dict[str, Any]], labs: list[dict[str, Any]], reached: list[dict[str, float]]) -> Path:
    """Save the figures: medians over the rounds, every round, versions and the machine."""
    host = LocalHost()
    floor_seconds = _median([f["marks"][BOOKINFO] for f in floors])
    stackbook_seconds = _median([r["same_steps"] for r in labs])
    ratios = [r["same_steps"] / f["marks"][BOOKINFO] for f, r in zip(floors, labs, strict=True)]
    data = {
        "time": now(),
        "floor_seconds": floor_seconds,
        "stackbook_seconds": stackbook_seconds,
        "ratio": _median(ratios),
        "marks": {name: _median([r["marks"][name] for r in labs]) for name in labs[0]["marks"]},
        "floor_marks": {name: _median([f["marks"][name] for f in floors]) for name in floors[0]["marks"]},
        "targets": PROMISED,
        "requests_a_second": {side: _median([r[side] for r in reached]) for side in reached[0]},
        "floor_phases": [f["phases"] for f in floors],
        "stackbook_steps": [r["steps"] for r in labs],
        "versions": dict(load().versions),
        "machine": {"processors": os.cpu_count(), "memory_gib": round(MEMORY.read(host)["MemTotal"] / 2**30, 1),
                    "system": OS_RELEASE.read(host).get("PRETTY_NAME", ""), "kernel": platform.release()},
    }  # fmt: skip
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{data['time']}.json"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    draw(data, rows(data), path.with_suffix(".png"))
    publish(data, path.with_suffix(".png"))
    print(f"floor {floor_seconds} s, stackbook {stackbook_seconds} s, ratio {data['ratio']}: {path}")
    return path


def rows(data: dict[str, Any]) -> list[tuple[str, float, float | None, float]]:
    """The comparison: name, seconds of stackbook, seconds of the bare commands (None: they have no such part), promise.

    Between the two marks, chapters 03 and 04 run their experiments, which the bare commands do not. So the second row
    counts only the steps towards bookinfo.
    """
    marks, floor, promised = data["marks"], data["floor_marks"], data["targets"]
    ready, bookinfo, everything = list(marks)
    return [
        (ready, marks[ready], floor[ready], promised[ready]),
        ("then Istio, and bookinfo 2/2", data["stackbook_seconds"] - marks[ready], data["floor_seconds"] - floor[ready],
         promised[bookinfo] - promised[ready]),
        (f"{everything}, with all experiments", marks[everything], None, promised[everything]),
    ]  # fmt: skip


def block(data: dict[str, Any]) -> str:
    """The README's figures, from one file of bench/."""
    machine = data["machine"]
    lines = ["| from nothing, warm cache | stackbook | bare commands | promised |", "|---|---|---|---|"]
    for name, seconds, floor, promised in rows(data):
        bare = f"{floor:.0f} s" if floor else "–"
        lines.append(f"| {name} | {seconds:.0f} s | {bare} | {promised:.0f} s |")
    lines.append("")
    lines.append(
        f"The same steps take stackbook {data['stackbook_seconds']:.0f} s and bare commands {data['floor_seconds']:.0f} s "
        f"(medians of {len(data['floor_phases'])} rounds). Compared round by round, stackbook takes {data['ratio']:.2f} times as long "
        f"(the median of the rounds' ratios). Measured on {machine['processors']} processors, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}, kernel {machine['kernel'].split('-')[0]}, "
        f"on {data['time'][:4]}-{data['time'][4:6]}-{data['time'][6:8]}."
    )
    if reached := data.get("requests_a_second"):
        lines.append("")
        lines.append(
            f"On the running lab, the load program is set to {RATE} requests/s: it sends {reached['inside']:.0f} inside the mesh "
            f"and {reached['host']:.0f} through the ingress gateway."
        )
    return "\n".join(lines)


def publish(data: dict[str, Any], picture: Path) -> None:
    """Put the figures and the plot into the README."""
    readme_figures.put("bench", block(data))
    shutil.copyfile(picture, paths.checkout() / "docs" / "bench.png")
