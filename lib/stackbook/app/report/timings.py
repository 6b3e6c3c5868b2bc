"""How long it took, against the runs before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from stackbook.app.report.records import RunRecord
from stackbook.app.report.style import e, outcome, seconds

# Runs in the table; bars and medians take all that were read.
_SHOWN = 5


def usual(runs: Sequence[RunRecord]) -> dict[str, list[float]]:
    """Seconds of each chapter, in the runs in which it was executed and passed; newest first."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for chapter in run.chapters:
            if chapter.outcome == "passed":
                found.setdefault(chapter.id, []).append(chapter.seconds)
    return found


def usual_steps(runs: Sequence[RunRecord]) -> dict[tuple[str, str], float]:
    """The median of the seconds of each step, by chapter and step, where it passed."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for chapter in run.chapters:
            for step in chapter.steps:
                if step.outcome == "passed":
                    found.setdefault((chapter.id, step.id), []).append(step.seconds)
    return {key: median(values) for key, values in found.items()}


def section(current: RunRecord, runs: Sequence[RunRecord], broken: int) -> str:
    """Bars of this run over the range of earlier ones, and a table of the last few."""
    known = usual(runs)
    said = f" {broken} earlier records could not be read and are left out." if broken else ""
    if not current.chapters:
        return f"<p>No chapter was run.{said}</p>"
    intro = "Bar: this run. Grey band: from the shortest to the longest of earlier passes; black line: their median."
    intro = f"<p>{intro if known else 'No earlier run to compare with.'}{said}</p>"
    return intro + _bars(current, known) + _table(current, runs[:_SHOWN])


def _bars(current: RunRecord, known: Mapping[str, Sequence[float]]) -> str:
    """One row for each chapter: name, bar, seconds. The text is HTML's, so it keeps its size on any screen."""
    ids = {c.id for c in current.chapters}
    longest = max([c.seconds for c in current.chapters] + [max(v) for k, v in known.items() if k in ids] + [0.1])
    rows, spoken = [], []
    for chapter in current.chapters:
        before = known.get(chapter.id, ())
        middle = f"usually {seconds(median(before))}" if before else ""
        good = chapter.passed
        rows.append(
            f"<span>{e(chapter.id)}</span>{_bar(chapter.seconds, before, longest, good)}"
            f'<span class="n">{seconds(chapter.seconds)}{"" if good else " " + outcome(chapter.outcome)}</span>'
        )
        spoken.append(f"{chapter.id} {seconds(chapter.seconds)} {middle}".strip())
    label = e("Bar chart of seconds by chapter: " + "; ".join(spoken))
    caption = f"Wall time by chapter; the full width is {seconds(longest)}."
    return (
        f'<figure><div class="bars" role="img" aria-label="{label}">{"".join(rows)}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _bar(now: float, before: Sequence[float], longest: float, good: bool) -> str:
    """The bar as SVG in units of a thousandth of the width; a failed chapter's is hatched by its outline."""

    def at(value: float) -> float:
        return round(1000 * min(max(value, 0.0), longest) / longest, 1)

    parts = ['<line x1="0" y1="23" x2="1000" y2="23" stroke="#c8c8c8"/>']
    if before:
        low, high = at(min(before)), at(max(before))
        parts.append(f'<rect x="{low}" y="2" width="{max(high - low, 4):.1f}" height="20" fill="#c9c9c9"/>')
    paint = (
        'fill="#0072B2"' if good else 'fill="#fff" stroke="#a33c00" stroke-width="2" vector-effect="non-scaling-stroke"'
    )
    parts.append(f'<rect x="0" y="7" width="{max(at(now), 2)}" height="10" {paint}/>')
    if before:
        parts.append(f'<rect x="{min(at(median(before)), 996)}" y="2" width="4" height="20" fill="#000"/>')
    return f'<svg viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'


def _table(current: RunRecord, runs: Sequence[RunRecord]) -> str:
    if not runs:
        return ""
    ids = [c.id for c in current.chapters]
    head = "".join(f'<th scope="col" class="n">{e(_short(r))}' for r in runs)
    rows = []
    for id in ids:
        now = next(c for c in current.chapters if c.id == id)
        cells = "".join(f'<td class="n">{_cell(run, id)}' for run in (current, *runs))
        rows.append(f'<tr><th scope="row" class="word">{e(now.id)}</th>{cells}</tr>')
    total = "".join(f'<td class="n">{run.seconds:.1f}' for run in (current, *runs))
    return (
        '<details><summary>The last runs in numbers</summary><div class="wide"><table><caption>Seconds by chapter; '
        "✗ failed, = proved unchanged, – not run</caption>"
        f'<thead><tr><th scope="col">chapter<th scope="col" class="n">this run{head}</thead>'
        f'<tbody>{"".join(rows)}<tr><th scope="row">whole run</th>{total}</tr></tbody></table></div></details>'
    )


def _short(run: RunRecord) -> str:
    """Month, day and time of a run."""
    return run.when[5:16] if run.when.endswith(" UTC") else run.name


def _cell(run: RunRecord, id: str) -> str:
    found = next((c for c in run.chapters if c.id == id), None)
    if found is None or found.outcome == "blocked":
        return "–"
    return f"{found.seconds:.1f}{ {'passed': '', 'unchanged': ' ='}.get(found.outcome, ' ✗') }"
