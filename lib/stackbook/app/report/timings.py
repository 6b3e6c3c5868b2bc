"""How long the run took, compared with earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from stackbook.app.report.pages import render, seconds
from stackbook.app.report.records import ChapterRecord, RunRecord

# Runs in the table; bars and medians use all runs that were read.
_SHOWN = 5


def usual(runs: Sequence[RunRecord]) -> dict[str, list[float]]:
    """Seconds of each chapter, in the runs that executed it and in which it passed; newest first."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for chapter in run.chapters:
            if chapter.outcome == "passed":
                found.setdefault(chapter.id, []).append(chapter.seconds)
    return found


def usual_steps(runs: Sequence[RunRecord]) -> dict[tuple[str, str], float]:
    """The median seconds of each step, by chapter and step, over the runs in which it passed."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for chapter in run.chapters:
            for step in chapter.steps:
                if step.outcome == "passed":
                    found.setdefault((chapter.id, step.id), []).append(step.seconds)
    return {key: median(values) for key, values in found.items()}


def section(current: RunRecord, runs: Sequence[RunRecord], broken: int) -> Markup:
    """Bars of this run over the range of earlier ones, and a table of the last few."""
    known = usual(runs)
    ids = [c.id for c in current.chapters]
    longest = max([c.seconds for c in current.chapters] + [max(known[id]) for id in ids if id in known] + [0.1])
    shown = [current, *runs[:_SHOWN]]
    return render(
        "timings",
        left_out=f" {broken} earlier records could not be read and are left out." if broken else "",
        compared=bool(known),
        bars=[_bar(chapter, known.get(chapter.id, ()), longest) for chapter in current.chapters],
        label=_label(current, known),
        longest=seconds(longest),
        runs=[_short(run) for run in shown[1:]],
        rows=[(id, [_cell(run, id) for run in shown]) for id in ids],
        totals=[f"{run.seconds:.1f}" for run in shown],
    )


def _bar(chapter: ChapterRecord, before: Sequence[float], longest: float) -> dict[str, Any]:
    """One row of the chart: name, bar, seconds. Positions are in thousandths of the width."""

    def at(value: float) -> float:
        return round(1000 * min(max(value, 0.0), longest) / longest, 1)

    return {
        "id": chapter.id,
        "seconds": seconds(chapter.seconds),
        "outcome": chapter.outcome,
        "passed": chapter.passed,
        "width": max(at(chapter.seconds), 2),
        "before": {
            "low": at(min(before)),
            "width": f"{max(at(max(before)) - at(min(before)), 4):.1f}",
            "median": min(at(median(before)), 996),
        }
        if before
        else None,
    }


def _label(current: RunRecord, known: Mapping[str, Sequence[float]]) -> str:
    """The chart's text for screen readers."""
    spoken = []
    for chapter in current.chapters:
        before = known.get(chapter.id)
        middle = f" usually {seconds(median(before))}" if before else ""
        spoken.append(f"{chapter.id} {seconds(chapter.seconds)}{middle}")
    return "Bar chart of seconds by chapter: " + "; ".join(spoken)


def _short(run: RunRecord) -> str:
    """Month, day and time of a run."""
    return run.when[5:16] if run.when.endswith(" UTC") else run.name


def _cell(run: RunRecord, id: str) -> str:
    found = next((c for c in run.chapters if c.id == id), None)
    if found is None or found.outcome == "blocked":
        return "–"
    return f"{found.seconds:.1f}{ {'passed': '', 'unchanged': ' ='}.get(found.outcome, ' ✗') }"
