"""The grade of a report: each piece of evidence is looked up again on the live stack, and judged by what is found there.

A finding without evidence, with evidence that does not hold, or with evidence about something else is refused: it scores nothing,
whatever cause it names. A wrong cause at the right place, with evidence of the symptom, gets a part of the points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stackbook.core.errors import StackbookError
from stackbook.lessons.incident import facts
from stackbook.lessons.incident.causes import CAUSES, about
from stackbook.lessons.incident.facts import METRIC, Fact
from stackbook.lessons.incident.reports import Evidence, Finding, Metric

POINTS: Mapping[str, int] = {"cause": 50, "place": 15, "evidence": 15, "minutes": 10, "untouched": 10}
"""The most points that each part gives; 100 in all."""
QUICK, LATE = 10.0, 30.0
"""Minutes: a report within `QUICK` gets all points for its time, one after `LATE` gets none."""
EACH_TOUCH = 5
_EARLY = 1.0
"""Seconds by which the clocks of machines and this host may differ."""


class Reader(Protocol):
    """Where evidence is looked up again."""

    def fact(self, evidence: Evidence, *, before: float) -> Fact | None:
        """What the evidence says now; None if it does not exist. A metric is also queried at the Unix time `before`."""


@dataclass(frozen=True)
class Truth:
    """A planted cause, its place, and since when (Unix time); `before` is a Unix time at which everything was healthy."""

    cause: str
    place: str
    since: float
    before: float


@dataclass(frozen=True)
class Verdict:
    """The verdict on a piece of evidence: whether it holds and concerns the finding, whether it tells the cause, and why."""

    evidence: Evidence
    signal: str
    holds: bool
    tells: bool
    why: str


@dataclass(frozen=True)
class Part:
    """A line of the score."""

    part: str
    points: float
    of: int
    why: str


@dataclass(frozen=True)
class Score:
    """The grade of a report: its parts, the verdicts on its evidence, why it was refused, and how many causes `of` all are right."""

    parts: Sequence[Part]
    verdicts: Sequence[Verdict]
    refused: str
    right: int
    of: int

    @property
    def total(self) -> int:
        """Points of 100."""
        return round(sum(part.points for part in self.parts))

    @property
    def solved(self) -> bool:
        """Whether every cause was named, with evidence that tells it, and nothing else was."""
        return not self.refused and self.right == self.of


def grade(
    planted: Sequence[Truth], findings: Sequence[Finding], reader: Reader, *, minutes: float, touched: Sequence[str], now: float
) -> Score:  # fmt: skip
    """Grade a report.

    Args:
        planted: the causes.
        findings: the report.
        reader: looks up its evidence.
        minutes: minutes since the incident began.
        touched: what else was changed in the lab since then.
        now: the Unix time of the report.
    """
    if not findings:
        return _nothing("there is no report", len(planted))
    count = max(len(planted), len(findings))
    sums = dict.fromkeys(POINTS, 0.0)
    verdicts: list[Verdict] = []
    right, refused, whys = 0, "", []
    for finding in findings:
        truth = next((t for t in planted if t.place == finding.place), planted[0])
        own = [judge(one, finding, truth, reader, now=now) for one in finding.evidence]
        verdicts += own
        if why := _refusal(finding, own):
            refused = refused or f"{finding.cause} at {finding.place}: {why}"
            continue
        points, found = _points(finding, truth, own)
        right += found
        for name, value in points.items():
            sums[name] += value / count
        whys.append(_why(finding, truth, own))
    if refused:
        return _nothing(refused, len(planted), verdicts)
    share = right / count
    sums["minutes"] = POINTS["minutes"] * share * min(1.0, max(0.0, (LATE - minutes) / (LATE - QUICK)))
    sums["untouched"] = share * max(0, POINTS["untouched"] - EACH_TOUCH * len(touched))
    reasons = {
        "cause": "; ".join(whys), "place": f"average of {count} findings" if count > 1 else "",
        "evidence": f"signals: {', '.join(sorted({v.signal for v in verdicts}))}",
        "minutes": f"{'within' if minutes <= QUICK else 'after'} {QUICK:.0f} minutes",
        "untouched": ", ".join(touched[:4]) or "nothing was changed",
    }  # fmt: skip
    parts = [Part(name, round(sums[name], 1), most, reasons[name]) for name, most in POINTS.items()]
    return Score(parts, verdicts, "", right if len(findings) <= len(planted) else 0, len(planted))


def _nothing(why: str, of: int, verdicts: Sequence[Verdict] = ()) -> Score:
    return Score([Part(name, 0.0, most, "refused") for name, most in POINTS.items()], list(verdicts), why, 0, of)


def _refusal(finding: Finding, verdicts: Sequence[Verdict]) -> str:
    """Why a finding scores nothing; empty if its evidence holds."""
    if not finding.evidence:
        return "it names a cause but shows no evidence"
    return next((f"{v.evidence}: {v.why}" for v in verdicts if not v.holds), "")


def _points(finding: Finding, truth: Truth, verdicts: Sequence[Verdict]) -> tuple[dict[str, float], bool]:
    """The points for cause, place and evidence, and whether the cause is found."""
    placed = finding.place == truth.place
    found = placed and finding.cause == truth.cause and any(v.tells for v in verdicts)
    same = CAUSES[finding.cause].symptom == CAUSES[truth.cause].symptom
    signals = min(2, len({v.signal for v in verdicts})) / 2
    return {
        "cause": POINTS["cause"] * found,
        "place": POINTS["place"] * (placed and same),
        "evidence": POINTS["evidence"] * signals * same,
    }, found


def _why(finding: Finding, truth: Truth, verdicts: Sequence[Verdict]) -> str:
    if finding.place != truth.place:
        return f"{finding.place}: the cause is at another service"
    if not any(v.tells for v in verdicts):  # it does not say whether the cause is right, so that guessing does not help
        return f"{finding.place}: the evidence does not tell {finding.cause} from its near misses"
    if finding.cause == truth.cause:
        return f"{finding.place}: {finding.cause}"
    same = CAUSES[finding.cause].symptom == CAUSES[truth.cause].symptom
    symptom = "which has the same symptom" if same else "which has another symptom"
    return f"{finding.place}: the cause is not {finding.cause}, {symptom}"


def judge(evidence: Evidence, finding: Finding, truth: Truth, reader: Reader, *, now: float) -> Verdict:
    """Look up one piece of evidence, and judge whether it holds, is from the time of the incident, and is about the place."""
    signal = METRIC if isinstance(evidence, Metric) else evidence.signal

    def no(why: str) -> Verdict:
        return Verdict(evidence, signal, False, False, why)

    if isinstance(evidence, Metric) and not truth.since - _EARLY <= evidence.at <= now + _EARLY:
        return no("it is not from the time of the incident")
    try:
        fact = reader.fact(evidence, before=truth.before)
    except StackbookError as error:
        return no(error.message.splitlines()[0][:160])
    if fact is None:
        return no("it does not exist")
    if not isinstance(evidence, Metric) and not truth.since - _EARLY <= float(fact["time"]) <= now + _EARLY:
        return no("it is not from the time of the incident")
    if wrong := _disagreement(evidence, fact):
        return no(wrong)
    seen = fact if isinstance(evidence, Metric) else facts.claimed(fact, evidence.shows)
    if not about(seen, finding.place):
        return no(f"it is about {fact['target'] or 'no service'}, not about {finding.place}")
    tells = CAUSES[finding.cause].told_by(seen, finding.place)
    another = any(
        cause.told_by(seen, finding.place) for cause in CAUSES.values()
    )  # the last log line of a program, for example
    if not (tells or another or facts.symptom(seen)):
        return no("it shows no symptom" if signal != METRIC else "it has not changed since before the incident")
    return Verdict(evidence, signal, True, tells, "it shows the cause" if tells else "it shows the symptom")


def _disagreement(evidence: Evidence, fact: Fact) -> str:
    """What the evidence says wrongly; empty if all of it is correct."""
    if isinstance(evidence, Metric):
        if (evidence.value is None) != (fact["value"] is None):
            return f"its value is {'missing' if fact['value'] is None else format(fact['value'], '.3g')}"
        if evidence.value is not None and not facts.agrees(fact["value"], evidence.value):
            return f"its value is {fact['value']:.3g}"
        return ""
    if not evidence.shows:
        return "the report does not say what it shows"
    for name, said in evidence.shows.items():
        if name not in fact or not facts.agrees(fact[name], said):
            return f"its {name} is {str(fact.get(name, 'missing'))[:80]}"
    return ""
