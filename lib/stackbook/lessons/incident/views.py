"""The tables and plots of an incident: each service now and before, the kinds of bad requests, a report without its ids."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.core.waiting import until
from stackbook.lessons.incident import facts, solving
from stackbook.lessons.incident.cases import Case
from stackbook.lessons.incident.causes import CAUSES, PLACES
from stackbook.lessons.incident.grading import Score
from stackbook.lessons.incident.reports import Finding, Metric
from stackbook.lessons.incident.witnesses import Witnesses

SIGNALS = ("good answers per s", "failures per s", "ms per request")
_LEAST = {"good answers per s": 0.5, "failures per s": 0.3, "ms per request": 1000 * facts.SLOW / 2}
"""Values that are smaller than this both now and before count as unchanged."""
_WORDS = ("fewer good answers", "calls to it fail", "it takes longer")
_ENOUGH = 40
_SECONDS = 20.0
"""The window of the queries, and the time of a scrape."""
_WIDE = 90


def gathered(see: Witnesses, *, timeout: float = 60.0) -> None:
    """Wait until all three signals cover the incident: a whole window of the queries, enough spans, enough log lines.

    Raises:
        WaitTimeout: one of them has too little.
    """
    counts: dict[str, int] = {}

    def enough() -> bool:
        counts.update(spans=len(see.spans()), lines=len(see.lines()))
        return min(counts.values()) >= _ENOUGH and time.time() >= see.since + _SECONDS

    until(enough, what="spans and log lines of the incident", timeout=timeout, every=2.0, last=lambda: str(counts))


def overview(see: Witnesses) -> pd.DataFrame:
    """Three numbers for each service: service, signal, before, now, and whether it is `worse`."""
    queries = (solving.answers, solving.failures, solving.duration)
    rows = []
    for place in PLACES:
        for signal, query in zip(SIGNALS, queries, strict=True):
            found = see.compare(query(place, see.words.name))
            before, now = float(found["before"] or 0), float(found["value"] or 0)
            matters = max(before, now) >= _LEAST[signal] and facts.deviates(now, before)
            worse = matters and (now < before if signal == SIGNALS[0] else now > before)
            rows.append({"service": place, "signal": signal, "before": before, "now": now, "worse": worse})
    return pd.DataFrame(rows)


def changed(table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of an overview that are worse, without their numbers."""
    words = dict(zip(SIGNALS, _WORDS, strict=True))
    wrong = table[table["worse"]]
    return [{"service": row["service"], "since the incident": words[row["signal"]]} for row in wrong.to_dict("records")]


def draw(table: pd.DataFrame) -> Any:
    """The overview as bars: each service before and now, one panel for each signal."""
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(3, 1, figsize=(9, 8.5), sharex=True)
    for axes, signal in zip(panels, SIGNALS, strict=True):
        part = table[table["signal"] == signal].set_index("service")
        places = range(len(part))
        axes.bar([p - 0.2 for p in places], part["before"], 0.38, color=PALETTE[0], label="before")
        axes.bar([p + 0.2 for p in places], part["now"], 0.38, color=PALETTE[1], hatch="//", label="now")
        axes.set_xticks(list(places), list(part.index))
        axes.set(ylabel=signal)
        axes.grid(axis="x", visible=False)
    panels[0].set(title="Each service of bookinfo, before the incident and now")
    panels[-1].set(xlabel="service")
    panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def bad(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that show a symptom, or a program's fatal error."""
    if rows.empty:
        return rows
    records = rows.to_dict("records")
    return rows[[bool(facts.symptom(one)) or "FATAL" in str(one.get("message", "")) for one in records]]


def kinds(rows: pd.DataFrame, table: pd.DataFrame, *columns: str, least: int = solving.LEAST) -> list[dict[str, Any]]:
    """The kinds of bad rows: each combination of some columns that occurs often enough, sorted.

    On a busy machine single requests are slow without a cause, so a slow row counts only if its service takes longer than before. A
    program's line has no status, and its text is in the column `details`.

    Args:
        rows: spans or log lines.
        table: `overview`, which says which services take longer.
        columns: the columns that make a kind.
        least: how many rows a kind has at least.
    """
    found = _without_slow_moments(bad(rows), table)
    if found.empty:
        return []
    shown = found.assign(**{name: found[name].astype(str) for name in columns})
    if "details" in columns:
        own = shown["kind"] == "program"
        shown.loc[own, "details"], shown.loc[own, "status"] = shown.loc[own, "message"], ""
    shown = shown.assign(**{name: shown[name].str.slice(0, _WIDE) for name in columns})
    sizes = shown.groupby(list(columns), sort=True).size()
    frame = sizes[sizes >= least].reset_index()[list(columns)]
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _without_slow_moments(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        return rows
    longer = set(table[table["worse"] & (table["signal"] == SIGNALS[2])]["service"])
    records = rows.to_dict("records")
    return rows[[facts.symptom(one) != "slow" or bool(longer & {one["service"], one["target"]}) for one in records]]


def worst(rows: pd.DataFrame) -> str:
    """The trace id of the last bad span; empty if none is bad."""
    found = bad(rows)
    return "" if found.empty else str(found["trace"].iloc[-1])


def report(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """A report as rows, without ids and values that differ between runs."""
    rows = []
    for finding in findings:
        for one in finding.evidence:
            if isinstance(one, Metric):
                signal, shows = "metric", _question(one.query)
            else:
                signal = one.signal
                shows = ", ".join(f"{k} {v}" for k, v in one.shows.items() if not isinstance(v, float))
            rows.append({"cause": finding.cause, "place": finding.place, "signal": signal, "shows": shows or "time"})
    return rows


def _question(query: str) -> str:
    """What a query of the solution asks, in words; Istio's metrics and Envoy's have different names."""
    for signal, ask in zip(_WORDS, (solving.answers, solving.failures, solving.duration), strict=True):
        for place in PLACES:
            if query in (ask(place, "istio"), ask(place, "envoy")):
                return f"{place}: {signal}"
    return query


def points(scores: dict[str, Score]) -> list[dict[str, Any]]:
    """Several reports side by side: what each scores, and why."""
    return [
        {"report": name, "points": score.total, "why": score.refused or score.parts[0].why}
        for name, score in scores.items()
    ]


def folded(findings: Sequence[Finding]) -> None:
    """Show a report behind a line that unfolds; as plain text, the line and the rows."""
    from IPython.display import display

    rows = pd.DataFrame(report(findings))
    inner = rows.to_html(index=False, border=0)
    line = "the report of the automatic solution"
    data = {
        "text/html": f"<details><summary>{line}</summary>{inner}</details>",
        "text/plain": f"{line}\n{rows.to_string(index=False)}",
    }
    display(data, raw=True)  # type: ignore[no-untyped-call]


def guesses(case: Case, findings: Sequence[Finding]) -> dict[str, Score]:
    """Hand in three bad reports: without evidence, with evidence of another service, and a near miss with evidence that holds."""
    first, *rest = findings
    other = next(place for place in PLACES if place not in {one.place for one in findings})
    near = next(name for name in CAUSES[first.cause].near if CAUSES[name].symptom == CAUSES[first.cause].symptom)
    handed = {
        "the cause without evidence": replace(first, evidence=()),
        "with evidence of another service": replace(first, place=other),
        "a near miss": replace(first, cause=near),
    }
    return {name: case.report(one, *rest) for name, one in handed.items()}
