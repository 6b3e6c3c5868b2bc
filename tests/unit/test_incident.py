"""The capstone: the grader refuses what is no evidence, the signs tell causes apart, and the solution decides on plain data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import pytest
from stackbook.core.errors import InputError
from stackbook.lab.challenge import Challenge
from stackbook.lessons import challenges
from stackbook.lessons.incident import (
    cases,
    causes,
    facts,
    grading,
    plants,
    reports,
    solving,
    tokens,
    touched,
    views,
    witnesses,
)
from stackbook.lessons.incident.causes import CAUSES, PLACES
from stackbook.lessons.incident.grading import POINTS, Score, Truth
from stackbook.lessons.incident.reports import Evidence, Finding, Metric, Row

SINCE, NOW = 1000.0, 1060.0


def span(**more: Any) -> dict[str, Any]:
    """A span row as `witnesses.spans` gives it: a call of reviews to ratings that went well."""
    return {
        "signal": "trace", "id": "t/s", "time": 1010.0, "trace": "t", "service": "reviews", "version": "v2", "kind": "client",
        "target": "ratings", "status": 200, "flags": "-", "seconds": 0.004, "own": 0.0, "container": "istio-proxy",
        "cluster": "outbound|9080||ratings.default.svc.cluster.local", "request_id": "r", **more,
    }  # fmt: skip


def line(**more: Any) -> dict[str, Any]:
    """A row of an access log, about the same call."""
    return {**span(), "signal": "log", "id": "doc", "details": "via_upstream", "reason": "", "message": "GET", **more}


SIGNS: dict[str, tuple[dict[str, Any], ...]] = {
    "abort-rule": (span(status=503, flags="FI"), line(status=503, flags="FI", details="fault_filter_abort")),
    "delay-rule": (span(seconds=0.8, flags="DI"), line(seconds=0.8, flags="DI")),
    "empty-subset": (
        span(status=503, flags="UH", cluster="outbound|9080|v9|ratings.default.svc.cluster.local"),
        line(status=503, flags="UH", cluster="outbound|9080|v9|ratings.default.svc.cluster.local"),
    ),
    "no-pods": (span(status=503, flags="UH"), line(status=503, flags="UH", details="no_healthy_upstream")),
    "crash": (
        span(status=503, flags="UH"),
        line(service="ratings", kind="program", container="ratings", message="FATAL: config.json: unexpected end of file"),
    ),
    "denied": (
        span(service="ratings", kind="server", status=403),
        line(service="ratings", kind="server", status=403, details="rbac_access_denied_matched_policy[none]"),
    ),
    "plain-text": (span(status=503, flags="UC"), line(status=503, flags="UC")),
    "expired-certificate": (
        span(status=503, flags="UF"),
        line(status=503, flags="UF", reason="TLS_error:|268435581:SSL_routines:CERTIFICATE_VERIFY_FAILED:_certificate_has_expired"),
    ),
    "full-disk": (
        span(service="ratings", kind="server", status=500, version="v2"),
        line(service="ratings", kind="program", container="ratings", message="dd: /store/ledger: No space left on device"),
    ),
    "slow-store": (
        span(service="ratings", kind="server", seconds=0.5, own=0.5, version="v2"),
        line(service="ratings", kind="program", container="ratings", message="slow query: ratings of product 0, 0.4 s"),
    ),
    "wrong-clock": (
        span(service="productpage", kind="server", target="productpage", status=401),
        line(service="productpage", kind="server", target="productpage", status=401,
             details="jwt_authn_access_denied{Jwt_not_yet_valid}"),
    ),
}  # fmt: skip
"""Rows as the live lab has them, for each cause: at ratings, but for the clock."""


def place_of(cause: str) -> str:
    return "productpage" if cause == "wrong-clock" else "ratings"


@dataclass
class Reader:
    """Evidence by its id, as it was recorded; a metric by its query: now and before."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def fact(self, evidence: Evidence, *, before: float) -> facts.Fact | None:
        if isinstance(evidence, Row):
            return self.rows.get(evidence.id)
        if evidence.query not in self.metrics:
            raise InputError(f"{evidence.query} has 4 answers", fix="sum them")
        now, then = self.metrics[evidence.query]
        return witnesses.metric_fact(evidence.query, value=now, before=then, at=evidence.at)


UP, FAILING = 'sum(up{app="ratings"})', 'failing{cluster_name="ratings"}'
READER = Reader(
    {
        "fi": SIGNS["abort-rule"][0], "log-fi": SIGNS["abort-rule"][1], "good": span(), "old": span(flags="FI", status=503, time=400.0),
        "details": span(target="details", flags="FI", status=503),
    },
    {UP: (None, 1.0), FAILING: (2.0, 0.0), 'calm{app="ratings"}': (5.0, 4.9)},
)  # fmt: skip
FI = Row("trace", "fi", {"flags": "FI"})
LOG = Row("log", "log-fi", {"status": 503})
TRUTH = Truth("abort-rule", "ratings", SINCE, SINCE)


def graded(
    *findings: Finding, minutes: float = 5.0, touched: tuple[str, ...] = (), truths: tuple[Truth, ...] = (TRUTH,)
) -> Score:
    return grading.grade(truths, findings, READER, minutes=minutes, touched=touched, now=NOW)


def finding(*evidence: Evidence, cause: str = "abort-rule", place: str = "ratings") -> Finding:
    return Finding(cause, place, evidence)


# the vocabulary


def test_the_vocabulary_is_closed_and_each_cause_can_be_planted() -> None:
    assert sorted(CAUSES) == sorted(plants.kinds()) == sorted(solving.SHOWS) == sorted(SIGNS)
    assert len(CAUSES) >= 8
    for cause in CAUSES.values():
        assert set(cause.near) <= set(CAUSES) - {cause.id} and cause.near
        assert set(cause.places) <= set(PLACES) and cause.places
        assert cause.first in facts.SIGNALS and cause.symptom in ("errors", "slow")
        assert any(CAUSES[name].symptom == cause.symptom for name in cause.near), "a near miss has the same symptom"


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_the_sign_of_a_cause_tells_it_from_its_near_misses(cause: str) -> None:
    place = place_of(cause)
    shown = [facts.claimed(one, {name: None for name in solving.SHOWS[cause] if name in one}) for one in SIGNS[cause]]
    if cause == "no-pods":
        shown = [dict(witnesses.metric_fact(UP, value=None, before=1.0, at=NOW))]
    assert any(CAUSES[cause].told_by(one, place) for one in shown)
    for near in CAUSES[cause].near:
        others = [facts.claimed(one, dict.fromkeys(facts.COLUMNS)) for one in SIGNS[near]]
        assert not any(CAUSES[cause].told_by(one, place_of(near)) for one in others), near
    assert not any(CAUSES[cause].told_by(one, next(p for p in PLACES if p != place)) for one in shown), (
        "another service"
    )


def test_a_healthy_row_shows_nothing() -> None:
    for one in (span(), line(), span(service="ratings", kind="server")):
        assert facts.symptom(one) == ""
        assert not any(cause.told_by(one, "ratings") for cause in CAUSES.values())


# the grade


def test_the_right_cause_with_its_sign_has_all_points() -> None:
    score = graded(finding(FI, LOG))
    assert (score.total, score.solved, score.refused) == (100, True, "")
    assert [part.of for part in score.parts] == list(POINTS.values()) and sum(POINTS.values()) == 100


REFUSED = {
    "no evidence": (finding(), "shows no evidence"),
    "it does not exist": (finding(Row("trace", "nowhere", {"flags": "FI"})), "does not exist"),
    "it says something else": (finding(Row("trace", "fi", {"flags": "UH"})), "its flags is FI"),
    "another number": (finding(Row("trace", "fi", {"status": 500, "flags": "FI"})), "its status is 503"),
    "nothing is claimed": (finding(Row("trace", "fi", {})), "does not say what it shows"),
    "another time": (finding(Row("trace", "old", {"flags": "FI"})), "not from the time"),
    "another service": (finding(Row("trace", "details", {"flags": "FI"})), "about details, not about ratings"),
    "a healthy request": (finding(Row("trace", "good", {"status": 200})), "shows no symptom"),
    "one piece of two is wrong": (finding(FI, Row("trace", "nowhere", {"flags": "FI"})), "does not exist"),
    "a metric as before": (finding(FI, Metric('calm{app="ratings"}', 5.0, NOW)), "has not changed"),
    "a metric of another value": (finding(FI, Metric(FAILING, 7.0, NOW)), "its value is 2"),
    "a metric of another time": (finding(FI, Metric(FAILING, 2.0, 500.0)), "not from the time"),
    "a metric of several answers": (finding(FI, Metric("all{ratings}", 2.0, NOW)), "has 4 answers"),
    "a metric of no service": (finding(FI, Metric("sum(up)", 2.0, NOW)), "has 4 answers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_report_that_names_the_cause_without_evidence_is_refused(name: str) -> None:
    report, why = REFUSED[name]
    score = graded(report)
    assert report.cause == TRUTH.cause and report.place == TRUTH.place
    assert score.total == 0 and not score.solved and why in score.refused, score.refused


def test_a_grader_that_does_not_look_would_let_a_guess_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: with evidence unchecked, the same reports would have points; so the check is what refuses them."""
    kept = grading.judge

    def blind(evidence: Evidence, *args: Any, **more: Any) -> grading.Verdict:
        return grading.Verdict(evidence, "trace", True, True, "")

    monkeypatch.setattr(grading, "judge", blind)
    passed = [name for name, (report, _) in REFUSED.items() if graded(report).solved]
    assert len(passed) == len(REFUSED) - 1, "all but the one without evidence"
    monkeypatch.setattr(grading, "judge", kept)
    assert not any(graded(report).total for report, _ in REFUSED.values())


def test_an_unsolved_incident_scores_nothing() -> None:
    assert graded().total == 0 and graded().refused == "there is no report"


def test_a_wrong_cause_with_the_right_symptom_scores_less() -> None:
    right, near = graded(finding(FI, LOG)), graded(finding(FI, LOG, cause="full-disk"))
    assert 0 < near.total == POINTS["place"] + POINTS["evidence"] < right.total and not near.solved
    slow = graded(finding(FI, LOG, cause="slow-store"))
    assert slow.total == 0 and not slow.solved


def test_a_near_miss_may_show_the_sign_of_the_true_cause_and_scores_as_little() -> None:
    last = SIGNS["crash"][1]
    reader = Reader({"doc": last})
    report = Finding("no-pods", "ratings", [Row("log", "doc", {"message": "FATAL"})])
    score = grading.grade([Truth("crash", "ratings", SINCE, SINCE)], [report], reader, minutes=1, touched=[], now=NOW)
    assert not score.refused and 0 < score.total < 30


def test_the_right_cause_that_only_the_symptom_supports_scores_as_a_guess_would() -> None:
    score = graded(finding(Row("trace", "fi", {"status": 503}), LOG))
    assert score.total == POINTS["place"] + POINTS["evidence"] and not score.solved
    near = graded(finding(Row("trace", "fi", {"status": 503}), LOG, cause="denied"))
    said = [one.parts[0].why.replace(cause, "it") for one, cause in ((score, "abort-rule"), (near, "denied"))]
    assert said[0] == said[1] and near.total == score.total, "so guessing one cause after the other tells nothing"


@pytest.mark.parametrize(("minutes", "wanted"), [(0.5, 100), (10, 100), (20, 95), (30, 90), (90, 90)])
def test_time_lowers_the_score(minutes: float, wanted: int) -> None:
    assert graded(finding(FI, LOG), minutes=minutes).total == wanted


def test_what_was_touched_lowers_the_score() -> None:
    totals = [graded(finding(FI, LOG), touched=tuple("abc")[:count]).total for count in range(4)]
    assert totals == [100, 95, 90, 90]


def test_one_signal_gives_half_of_the_points_for_evidence() -> None:
    assert graded(finding(FI)).total == round(100 - POINTS["evidence"] / 2)


def test_two_causes_are_both_wanted_and_a_third_finding_costs() -> None:
    both = (TRUTH, Truth("no-pods", "details", SINCE, SINCE))
    reader = Reader({**READER.rows}, {'sum(up{app="details"})': (None, 1.0)})
    gone = finding(
        Metric('sum(up{app="details"})', None, NOW),
        Row("trace", "details", {"flags": "FI"}),
        cause="no-pods",
        place="details",
    )
    one, two = finding(FI, LOG), gone

    def score(*findings: Finding) -> Score:
        return grading.grade(both, findings, reader, minutes=1, touched=[], now=NOW)

    assert score(one, two).total == 100 and score(one, two).solved
    assert score(one).total == 50 and not score(one).solved
    extra = finding(FI, LOG, place="ratings", cause="denied")
    assert score(one, two, extra).total < 100 and not score(one, two, extra).solved


# the report as a file


def test_a_report_is_the_same_after_writing_and_reading() -> None:
    found = [finding(FI, Metric(UP, None, 5.0), Row("log", "d", {"seconds": 0.5}))]
    assert reports.parsed(reports.as_text(found)) == found


def test_an_empty_form_is_no_report() -> None:
    assert reports.parsed("- cause:\n  place:\n  evidence: []\n") == []
    assert reports.parsed("") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- {cause: abort-rul, place: ratings}", "did you mean 'abort-rule'"),
        ("- {cause: abort-rule, place: rating}", "did you mean 'ratings'"),
        ("- {cause: abort-rule, place: ratings, evidence: [it is so]}", "this is not evidence"),
        ("- {cause: abort-rule, place: ratings, evidence: yes}", "not a list"),
        ("- {cause: abort-rule, place: ratings, evidence: [{trace: a/b, shows: {flag: FI}}]}", "has no column 'flag'"),
        ("- {cause: abort-rule, place: ratings, evidence: [{trace: a/b, shows: FI}]}", "not a mapping"),
        ("- {cause: abort-rule, place: ratings, evidence: [{metric: up}]}", "needs its value"),
        ("- [", "not valid YAML"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        reports.parsed(text)
    assert why in str(caught.value)


# the automatic solution


def compared(values: Mapping[str, tuple[float | None, float | None]]) -> solving.Compare:
    def ask(query: str) -> Mapping[str, Any]:
        now, before = values.get(query, (None, None))
        return {"query": query, "at": NOW, "value": now, "before": before}

    return ask


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_the_solution_decides_on_recorded_rows_and_the_grader_agrees(cause: str) -> None:
    place = place_of(cause)
    healthy = [span(), line(), span(service="details", target="details", kind="server")] * 10
    rows = healthy + [{**one, "id": f"{one['id']}{number}"} for number in range(4) for one in SIGNS[cause]]
    values = {UP: (None, 1.0)} if cause == "no-pods" else {UP: (1.0, 1.0)}
    found = solving.decide(rows, compared(values), "envoy")
    assert [(one.cause, one.place) for one in found] == [(cause, place)]
    reader = Reader({one["id"]: one for one in rows}, values)
    score = grading.grade([Truth(cause, place, SINCE, SINCE)], found, reader, minutes=1, touched=[], now=NOW)
    assert score.total == 100, (score.refused, score.parts)


def test_the_solution_says_nothing_about_a_healthy_stack_or_a_single_failure() -> None:
    assert solving.decide([span(), line()] * 20, compared({}), "envoy") == []
    assert solving.decide([span()] * 20 + [SIGNS["plain-text"][0]] * 2, compared({}), "envoy") == []


def test_the_solution_is_not_told_what_was_planted() -> None:
    import inspect

    text = inspect.getsource(solving)
    assert not any(word in text for word in ("drawn", "attempt", "Truth", "planted"))


@pytest.mark.parametrize("words", ["istio", "envoy"])
def test_each_query_names_its_service(words: str) -> None:
    for place in PLACES:
        for query in (solving.failures(place, words), solving.answers(place, words), solving.duration(place, words)):
            assert witnesses.metric_fact(query, value=1, before=0, at=0)["target"] == place


# levels, seeds, what was touched


def test_a_seed_draws_the_same_on_any_lab_and_seeds_reach_every_cause() -> None:
    drawn = {cases.chosen(f"word{number}", "easy")[0] for number in range(200)}
    assert {cause for cause, _ in drawn} == set(CAUSES)
    assert cases.chosen("friday", "easy") == cases.chosen("friday", "normal") == [("denied", "details")]
    for number in range(100):
        (first, here), (second, there) = cases.chosen(f"word{number}", "hard")
        assert first != second and here != there
        assert here in CAUSES[first].places and there in CAUSES[second].places


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_the_easiest_level_offers_few_causes_and_the_right_one(cause: str) -> None:
    offered = causes.candidates(cause)
    assert cause in offered and 3 <= len(offered) <= 4 < len(CAUSES)
    assert {CAUSES[name].symptom for name in offered} == {"errors", "slow"}


def test_the_levels_are_challenges_of_chapter_16() -> None:
    found: tuple[Challenge, ...] = challenges.of("16-incident")
    assert [one.id for one in found] == list(cases.LEVELS.values())
    assert all(cause not in f"{one.situation} {one.hints}" for one in found for cause in CAUSES)


def test_a_pod_that_restarts_by_itself_was_not_touched_but_one_that_was_deleted_was() -> None:
    def pod(name: str, uid: str, **more: Any) -> dict[str, Any]:
        return {
            "kind": "Pod",
            "metadata": {"namespace": "default", "name": name, "uid": uid, "labels": {"app": "details"}, **more},
        }

    def deployment(replicas: int) -> dict[str, Any]:
        meta = {"namespace": "default", "name": "details-v1", "labels": {"app": "details"}, "generation": replicas}
        return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": replicas}, "status": {"x": replicas}}

    before = touched.marks([pod("details-v1-6d5f8c9b64-x2x4z", "1"), deployment(1)])
    assert touched.changes(before, touched.marks([pod("details-v1-6d5f8c9b64-x2x4z", "1"), deployment(1)])) == []
    replaced = touched.marks([pod("details-v1-6d5f8c9b64-bbbbb", "2"), deployment(1)])
    assert touched.changes(before, replaced) == ["a pod of default/details-v1 was replaced"]
    scaled = touched.marks(
        [pod("details-v1-6d5f8c9b64-x2x4z", "1"), pod("details-v1-6d5f8c9b64-ccccc", "3"), deployment(2)]
    )
    assert touched.changes(before, scaled) == ["Deployment default/details-v1 was changed"]
    assert touched.changes(before, touched.marks([deployment(1)])) == ["a pod of default/details-v1 was replaced"]


def test_a_token_of_a_clock_that_is_ahead_is_not_yet_valid() -> None:
    import base64
    import json

    head, claims, mark = tokens.token(b"k" * 32, time.time() + tokens.AHEAD).reveal().split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert said["nbf"] > time.time() + 3000 and head and mark


def test_a_slow_moment_of_a_busy_machine_is_no_kind_of_bad_row() -> None:
    """The page answers slowly now and then, and no service takes longer than before: only the failures are shown."""
    failing, slow = (
        span(status=403, target="details"),
        span(service="istio-ingressgateway", target="productpage", seconds=0.4),
    )
    rows = pd.DataFrame([failing] * 5 + [slow] * 5)
    table = pd.DataFrame([{"service": name, "signal": views.SIGNALS[2], "worse": False} for name in PLACES])
    assert views.kinds(rows, table, "target", "status") == [{"target": "details", "status": "403"}]
    longer = table.assign(worse=table["service"] == "productpage")
    assert {row["target"] for row in views.kinds(rows, longer, "target", "status")} == {"details", "productpage"}


def test_a_report_is_shown_without_its_ids() -> None:
    rows = views.report([replace(finding(FI, Row("trace", "x", {"own": 0.53})), cause="slow-store")])
    assert [row["shows"] for row in rows] == ["flags FI", "time"]
    for words in ("istio", "envoy"):
        asked = Metric(solving.failures("details", words), 2.0, NOW)
        assert views.report([finding(asked)])[0]["shows"] == "details: calls to it fail"
