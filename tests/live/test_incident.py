"""Every kind of incident on the live lab: unsolved it scores nothing, its evidence alone leads to it, and the lab is as it was.

`STACKBOOK_CHALLENGES` names the profile of another lab than the default one; chapters 05 and 10 to 12 must have run on it.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from labtools import stackbook
from stackbook.app import checks, session
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.waiting import until
from stackbook.lab import attempt
from stackbook.lab.lab import Lab
from stackbook.lessons import challenges
from stackbook.lessons.incident import cases, customers
from stackbook.lessons.incident.cases import Case
from stackbook.lessons.incident.causes import CAUSES, PLACES
from stackbook.lessons.incident.grading import Score
from stackbook.lessons.incident.reports import Finding, Metric
from stackbook.lessons.incident.witnesses import Witnesses
from test_challenges import differences, namespaces_gone, state

pytestmark = [pytest.mark.live, pytest.mark.more]
CHAPTER = "16-incident"
LONGEST = 120.0
"""Seconds that the automatic solution may take."""
PLANTED = [
    (("abort-rule", "reviews"), ("denied", "details")),
    (("full-disk", "ratings"), ("plain-text", "details")),
    (("slow-store", "ratings"), ("no-pods", "details")),
    (("delay-rule", "reviews"), ("crash", "ratings")),
    (("empty-subset", "reviews"), ("expired-certificate", "details")),
    (("wrong-clock", "productpage"),),
]
"""Two at once, as the hardest level plants them: twice as many kinds in the time of one. With a wrong clock no request gets further."""
TOOK: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, with chapters 10 to 12; in the end, it is compared with its start."""
    name = os.environ.get("STACKBOOK_CHALLENGES", "")
    if not name:
        request.getfixturevalue("built")
    name = name or "embedded"
    for chapter in ("10-metrics", "11-tracing", "12-logs"):
        one = session.opened(chapter, name)
        try:
            one.checks_of(chapter)[-1].prove(one)
        except StackbookError:
            done = stackbook("run", "--only", chapter[:2], "--profile", name)
            assert done.status == 0, done.output[-3000:]
    lab = session.opened(CHAPTER, name)
    namespaces_gone(lab)
    before = state(lab)
    yield lab
    print(json.dumps(TOOK, indent=1))
    if path := os.environ.get("STACKBOOK_TEST_LOGS"):
        Path(path, "incidents.json").write_text(json.dumps(TOOK, indent=1))
    namespaces_gone(lab)
    assert differences(before, state(lab)) == {}


def begun(lab: Lab, what: tuple[tuple[str, str], ...]) -> tuple[Case, attempt.Find]:
    """An incident of these causes, whatever a seed would draw."""
    known = challenges.find(cases.LEVELS["hard" if len(what) > 1 else "normal"])
    own = replace(known, begin=cases.starts("hard" if len(what) > 1 else "normal", what))
    opened = until(  # a pod that the last incident ended may still be a target of Prometheus
        lambda: attempt.begin(lab, lambda _: own, own.id, "tests", say=lambda line: None),
        what="the lab to be whole again", timeout=60, every=2, tolerate=(InputError,),
    )  # fmt: skip
    return Case(opened), lambda _: own


def refused(case: Case, *findings: Finding, see: Witnesses | None = None) -> str:
    score: Score = case.report(*findings, see=see)
    assert score.total == 0 and not score.solved, score
    return score.refused


def test_every_cause_is_planted_here() -> None:
    assert sorted(cause for what in PLANTED for cause, _ in what) == sorted(CAUSES)


@pytest.mark.parametrize("what", PLANTED, ids=lambda what: "+".join(cause for cause, _ in what))
def test_planted_found_by_evidence_scored_and_given_back(
    what: tuple[tuple[str, str], ...], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customers, "HEALTHY", 6.0)  # enough for the metrics that are compared here
    with lab.turn("an incident"):
        before = state(lab)
        moments = [time.monotonic()]
        case, find = begun(lab, what)
        try:
            moments.append(time.monotonic())
            assert "is open" in refusal_of_the_check(lab)
            assert refused(case) == "there is no report"
            began = time.monotonic()
            with case.witnesses() as see:
                findings = case.solve(see)
                earlier = Metric(f'sum(up{{app="{findings[0].place}"}})', 1.0, case.since - 5)
                moments.append(time.monotonic())
                assert moments[-1] - began < LONGEST
                assert {(one.cause, one.place) for one in findings} == set(what)
                score = case.report(*findings, see=see)
                assert score.solved and score.total >= 90, score
                assert len({verdict.signal for verdict in score.verdicts}) >= 2
                moments.append(time.monotonic())
                first, *rest = findings
                assert "shows no evidence" in refused(case, replace(first, evidence=()), *rest, see=see)
                assert "not from the time" in refused(
                    case, replace(first, evidence=(*first.evidence, earlier)), *rest, see=see
                )
                other = next(place for place in PLACES if place not in {place for _, place in what})
                assert refused(case, replace(first, place=other), *rest, see=see)
                near = next(
                    name for name in CAUSES[first.cause].near if CAUSES[name].symptom == CAUSES[first.cause].symptom
                )
                wrong = case.report(replace(first, cause=near), *rest, see=see)
                assert 0 < wrong.total < score.total - 20 and not wrong.solved, wrong
                moments.append(time.monotonic())
        finally:
            attempt.end(lab, find, say=lambda line: None)
        moments.append(time.monotonic())
        names = ("begin", "solve", "grade", "refuse", "end")
        seconds = [round(b - a, 1) for a, b in itertools.pairwise(moments)]
        TOOK["+".join(cause for cause, _ in what)] = dict(zip(names, seconds, strict=True))
        print(TOOK)
        assert refusal_of_the_check(lab) == ""
        assert differences(before, state(lab)) == {}


def refusal_of_the_check(lab: Lab) -> str:
    """What the chapter's postcondition says; empty where it holds."""
    try:
        checks.of(CHAPTER)[0].prove(lab)
    except StackbookError as error:
        return error.message
    return ""


def test_what_is_touched_costs_points_and_another_process_gives_the_lab_back(lab: Lab) -> None:
    """By the command line, as a terminal would: begun, read, something restarted, verified, given back after its process is gone."""
    profile = lab.profile.name if lab.profile.name == "embedded" else os.environ["STACKBOOK_CHALLENGES"]
    with lab.turn("an incident"):
        before = state(lab)
        done = stackbook("challenge", "start", "16-a", "--seed", "friday", "--profile", profile, timeout=200)
        try:
            assert done.status == 0, done.output
            case = Case.of(lab)
            assert case.offered == ["abort-rule", "delay-rule", "denied", "wrong-clock"]
            assert stackbook("challenge", "verify", "--profile", profile, timeout=100).status == 1
            findings = case.solve()
            lab.kube.kubectl("delete", "pod", "-n", "default", "-l", "app=ratings", "--wait=false")
            score = case.report(*findings)
            assert score.solved and score.total == 95, score
            assert "ratings" in next(part.why for part in score.parts if part.part == "untouched")
            done = stackbook("challenge", "verify", "--profile", profile, timeout=100)
            assert done.status == 0 and "95 of 100 points" in done.output, done.output
        finally:
            done = stackbook("challenge", "end", "--profile", profile, timeout=200)
        assert done.status == 0, done.output
        assert customers.NAME not in str(lab.kube.pods("default"))
        assert differences(before, state(lab)) == {}
