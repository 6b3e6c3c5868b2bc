"""One incident from its beginning to its end: planted, read through its signals, reported, graded, and undone.

An incident is a challenge (`stackbook.lab.attempt`): only one is open at a time, its changes are in the journal, and any process
can end it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stackbook.analysis import display
from stackbook.core.errors import InputError
from stackbook.lab import attempt as attempts
from stackbook.lab import learner
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Claim, Typed, require
from stackbook.lessons.incident import customers, grading, plants, reports, solving, touched
from stackbook.lessons.incident.causes import CAUSES, PLACES, candidates
from stackbook.lessons.incident.grading import Score, Truth
from stackbook.lessons.incident.lots import drawn
from stackbook.lessons.incident.reports import Finding
from stackbook.lessons.incident.witnesses import Witnesses, opened
from stackbook.mesh import bookinfo

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

LEVELS = {"easy": "16-a", "normal": "16-b", "hard": "16-c"}
"""The challenge of each level: few possible causes and advice where to look first; all causes; two causes at once."""
ANSWER = "answer.yaml"
_RECOVERY = 120.0


def chosen(word: str, level: str) -> list[tuple[str, str]]:
    """The causes and places that a seed plants at a level: one, or two with different places at the level hard.

    >>> len({place for _, place in chosen("a", "hard")})
    2
    """
    cause = drawn(word, "cause", plants.kinds())
    if level != "hard":
        return [(cause, drawn(word, "place", CAUSES[cause].places))]
    # With a wrong clock, no request would reach the second cause.
    kinds = [kind for kind in plants.kinds() if kind != "wrong-clock"]
    first = drawn(word, "first", kinds)
    place = drawn(word, "place", CAUSES[first].places)
    others = [(kind, there) for kind in kinds if kind != first for there in CAUSES[kind].places if there != place]
    return [(first, place), drawn(word, "second", others)]


def starts(level: str, what: Sequence[tuple[str, str]] = ()) -> Callable[[Attempt], None]:
    """A function that begins an incident: it starts customers, lets healthy requests flow for some seconds, then plants the causes.

    Args:
        level: easy, normal or hard.
        what: the causes and places to plant; if empty, the seed decides.
    """

    def begin(attempt: Attempt) -> None:
        planted = list(what) or chosen(attempt.seed.partition(":")[2], level)
        customers.begin(attempt)
        since = time.time()
        for cause, place in planted:
            plants.plant(attempt, cause, place)
        attempt.note(
            level=level, planted=planted, since=since, stood=touched.standing(attempt.lab.kube), told=time.time()
        )
        attempt.write(ANSWER, Case(attempt).form())

    return begin


def recovered(attempt: Attempt) -> None:
    """Wait until bookinfo is healthy again: six pods with their proxies, and a page that opens."""
    from stackbook.core.waiting import until

    kube = attempt.lab.kube
    kube.wait_pods("default", bookinfo.SELECTOR, count=len(bookinfo.WORKLOADS), timeout=_RECOVERY)
    until(lambda: not bookinfo.unhealthy(kube), what="bookinfo to be healthy again", timeout=_RECOVERY, every=0.5,
          last=lambda: "; ".join(bookinfo.unhealthy(kube)))  # fmt: skip
    until(lambda: bookinfo.page(attempt.lab).ok, what="the product page to open", timeout=_RECOVERY, every=0.5)


@dataclass(frozen=True)
class Case:
    """An open incident, and what a learner can do with it."""

    attempt: Attempt

    @classmethod
    def of(cls, lab: Lab) -> Case:
        """The incident that is open on a lab.

        Raises:
            InputError: no incident is open.
        """
        from stackbook.lessons import challenges

        found = Attempt.saved(lab, challenges.find)
        if found is None or "planted" not in found.drawn:
            raise InputError("no incident is open on this lab", fix="stackbook challenge start 16-a")
        return cls(found)

    def __repr__(self) -> str:
        return f"an incident, level {self.level}"

    @property
    def level(self) -> str:
        """Its level."""
        return str(self.attempt.drawn["level"])

    @property
    def causes(self) -> int:
        """How many causes there are."""
        return len(self.attempt.drawn["planted"])

    @property
    def since(self) -> float:
        """The Unix time at which the complaints began; before it, everything was healthy."""
        return float(self.attempt.drawn["since"])

    @cached_property
    def offered(self) -> list[str]:
        """The possible causes at this level, in alphabetical order."""
        if self.level != "easy":
            return sorted(CAUSES)
        return candidates(self.attempt.drawn["planted"][0][0])

    @property
    def advice(self) -> str:
        """Where to look first, at the level easy; empty at the other levels."""
        if self.level != "easy":
            return ""
        first = CAUSES[self.attempt.drawn["planted"][0][0]].first
        return f"the sign of the cause is in the {first}s"

    def form(self) -> str:
        """An empty report, with the allowed words and an example."""
        lines = [
            f"# What is wrong, and where? {self.causes} cause{'s' if self.causes > 1 else ''}, each with its evidence.",
            f"# causes: {', '.join(self.offered)}",
            f"# places: {', '.join(PLACES)}",
            *([f"# {self.advice}"] if self.advice else []),
            "# evidence, such as:",
            "#   - {metric: 'sum(up{app=\"details\"})', value: 1, at: 1790000000}  # Unix time",
            "#   - {trace: TRACE/SPAN, shows: {flags: FI}}",
            "#   - {log: DOCUMENT, shows: {status: 503}}",
        ]
        return "\n".join([*lines, *(["- cause:\n  place:\n  evidence: []"] * self.causes)]) + "\n"

    # its evidence

    @contextlib.contextmanager
    def witnesses(self) -> Iterator[Witnesses]:
        """The three signals, while the block runs; see `Witnesses`."""
        with opened(self.attempt.lab, since=self.since, before=self.since) as see:
            yield see

    def solve(self, see: Witnesses | None = None) -> list[Finding]:
        """The automatic solution's report; it reads only the signals."""
        if see is not None:
            return solving.solve(see, causes=self.causes)
        with self.witnesses() as own:
            return solving.solve(own, causes=self.causes)

    # its report

    def report(self, *findings: Finding, see: Witnesses | None = None) -> Score:
        """Hand in a report: write it into answer.yaml and grade it; `show` prints the grade.

        Args:
            findings: one for each cause.
            see: the signals in which the evidence is looked up; if None, they are opened for this report.

        Raises:
            InputError: a finding uses a word that is not in the vocabulary.
        """
        for one in findings:
            reports.check(one)
        self.attempt.write(ANSWER, reports.as_text(findings))
        score = self.graded(see)
        learner.note(self.attempt.lab.state, "verified", self.attempt.challenge.chapter, challenge=self.attempt.challenge.id,
                     holds=score.right, of=score.of, solved=score.solved, points=score.total)  # fmt: skip
        return score

    def graded(self, see: Witnesses | None = None) -> Score:
        """The grade of the report in answer.yaml; see `report`."""
        findings = reports.parsed(self.attempt.read(ANSWER))
        now = time.time()
        truths = [Truth(cause, place, self.since, self.since) for cause, place in self.attempt.drawn["planted"]]
        changed = touched.changes(self.attempt.drawn["stood"], touched.standing(self.attempt.lab.kube))
        minutes = (now - float(self.attempt.drawn["told"])) / 60
        if not findings:
            return grading.grade(truths, [], _Nobody(), minutes=minutes, touched=changed, now=now)
        with contextlib.nullcontext(see) if see else self.witnesses() as reader:
            return grading.grade(truths, findings, reader, minutes=minutes, touched=changed, now=now)

    def end(self) -> None:
        """End the incident, and restore the lab."""
        self.attempt.end()


class _Nobody:
    """The reader for an empty report: it looks nothing up."""

    def fact(self, evidence: Any, *, before: float) -> None:
        return None


def show(score: Score) -> None:
    """Print the verdict on each piece of evidence, and show the grade as a table."""
    if score.refused:
        print(f"refused: {score.refused}")
    for one in score.verdicts:
        print(f"{'✓' if one.holds else '✗'} {one.signal}: {one.why}")
    rows = [{"part": part.part, "points": f"{part.points:g}", "of": part.of, "why": part.why} for part in score.parts]
    display.table([*rows, {"part": "in all", "points": f"{score.total}", "of": 100, "why": ""}])


def begin(lab: Lab, *, level: str = "easy", seed: str = "") -> Case:
    """Begin an incident, or continue the one that is open.

    Args:
        lab: bound to chapter 16.
        level: easy, normal or hard.
        seed: the same word plants the same incident on any lab; if empty, it depends on this lab.

    Raises:
        InputError: there is no such level, or a chapter that it needs has not run.
    """
    from stackbook.lessons import challenges

    if level not in LEVELS:
        raise InputError(f"there is no level {level!r}", fix=f"choose one of {', '.join(LEVELS)}")
    found = attempts.begin(lab, challenges.find, LEVELS[level], seed, say=_say)
    return Case(found)


@contextlib.contextmanager
def during(lab: Lab, *, level: str, seed: str) -> Iterator[Case]:
    """Run an incident while the block runs; see `begin`. However the block ends, the lab is restored."""
    case = begin(lab, level=level, seed=seed)
    try:
        yield case
    finally:
        case.end()


def _say(line: str) -> None:
    if not line.startswith("files:"):  # a path of this host
        print(line)


# as a challenge


def claims(attempt: Attempt) -> Sequence[Claim]:
    """What a report has to show."""
    grades: list[Score] = []

    def score() -> Score:
        if not grades:
            try:
                grades.append(Case(attempt).graded())
            except InputError as error:
                grades.append(Score([], [], error.message, 0, Case(attempt).causes))
        return grades[0]

    def holds() -> str:
        require(not score().refused, score().refused)
        return "; ".join(f"{one.signal}: {one.why}" for one in score().verdicts)

    def told() -> str:
        why = next((part.why for part in score().parts if part.part == "cause"), "")
        require(score().solved, f"{score().total} of 100 points: {why}")
        return f"{score().total} of 100 points"

    return [
        Claim("the evidence in the report holds, and is about the services that the report names", holds),
        Claim("the report names every cause, each with evidence that tells it from its near misses", told),
    ]


def solution(attempt: Attempt) -> Sequence[Typed]:
    """The automatic solution, as a cell."""
    return [
        Typed(
            "from stackbook.lessons import incident\n"
            "case = incident.Case.of(lab)\n"
            "findings = case.solve()       # reads metrics, spans and log lines; knows neither seed nor cause\n"
            "score = case.report(*findings)",
            python=True,
        )
    ]
