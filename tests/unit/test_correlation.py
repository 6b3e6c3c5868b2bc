"""Three witnesses: agreement, and each way of disagreeing."""

from __future__ import annotations

import pandas as pd
import pytest
from stackbook.core.errors import CheckFailed
from stackbook.observability import correlation
from stackbook.traffic import request_keys

IDS = [f"00000000-0000-4000-8000-{n:012d}" for n in range(6)]


def client() -> pd.DataFrame:
    return pd.DataFrame(
        {"version": ["v1", "v1", "v2", "v2", "v3", "v3"], "status": [200] * 5 + [404], "request_id": IDS}
    )


def log() -> pd.DataFrame:
    frame = correlation.from_client(client(), "reviews")
    return frame.assign(direction="inbound", path="/reviews/0", time=1.0, seconds=0.1,
                        request_id=[i[:14] + "9" + i[15:] for i in frame["request_id"]])  # fmt: skip


def spans() -> pd.DataFrame:
    frame = correlation.from_client(client(), "reviews").rename(columns={"service": "app"})
    ids = [f"t{n}" for n in range(6)]
    more = {"kind": "server", "operation": "reviews", "start": 1.0, "seconds": 0.1, "trace_id": ids}
    return frame.assign(service="reviews.default", **more)


def gathered(
    entries: pd.DataFrame, traced: pd.DataFrame, counted: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    sent = correlation.from_client(client(), "reviews")
    lines = {"logs": correlation.from_log(entries), "traces": correlation.from_spans(traced)}
    table = correlation.testimony(
        {"client": request_keys.count(sent), "metrics": counted, **{n: request_keys.count(f) for n, f in lines.items()}},
        services=["reviews"])  # fmt: skip
    return table, correlation.missed(sent, lines, service="reviews")


def counted() -> pd.DataFrame:
    return request_keys.count(correlation.from_client(client(), "reviews"))


def test_three_witnesses_agree() -> None:
    table, gone = gathered(log(), spans(), counted())
    assert table["all agree"].all() and not any(gone.values())
    correlation.prove(table, gone, least=6)


def test_a_log_line_that_is_missing_is_named_by_its_request() -> None:
    table, gone = gathered(log().drop(index=3), spans(), counted())
    with pytest.raises(CheckFailed, match=f"logs missed 1: {IDS[3]}"):
        correlation.prove(table, gone, least=6)


def test_a_span_that_is_there_twice_is_noticed() -> None:
    twice = pd.concat([spans(), spans().iloc[:1]])
    table, gone = gathered(log(), twice, counted())
    with pytest.raises(CheckFailed, match=f"traces missed 1: {IDS[0]}; reviews v1 200: .*traces 3"):
        correlation.prove(table, gone, least=6)


def test_a_metric_that_counts_one_less_is_noticed() -> None:
    short = counted()
    short.loc[0, "count"] -= 1
    table, gone = gathered(log(), spans(), short)
    with pytest.raises(CheckFailed, match="reviews v1 200: client 2, metrics 1, logs 2, traces 2"):
        correlation.prove(table, gone, least=6)


def test_a_wrong_status_is_noticed_though_the_sums_are_equal() -> None:
    wrong = log()
    wrong.loc[0, "status"] = 503
    table, gone = gathered(wrong, spans(), counted())
    with pytest.raises(CheckFailed, match="reviews v1 503"):
        correlation.prove(table, gone, least=6)


def test_too_few_requests_prove_nothing() -> None:
    table, gone = gathered(log(), spans(), counted())
    with pytest.raises(CheckFailed, match="at least 500"):
        correlation.prove(table, gone, least=500)


def test_a_request_is_told_in_order_by_both() -> None:
    told = correlation.story(IDS[0], log(), spans().assign(start=0.9))
    assert list(told["witness"]) == ["span", "access log"]
    assert told["start"].tolist() == pytest.approx([0.0, 0.1])
    assert len(correlation.draw(told, title="t").axes) == 1


def test_waiting_ends_with_what_there_is() -> None:
    found = correlation.complete(lambda: {"logs": log()}, wanted={"reviews": 7}, timeout=0.1)
    assert len(found["logs"]) == 6


def test_what_a_neighbour_was_asked_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies send their spans each in its own time: reviews may be complete before ratings is."""
    monkeypatch.setattr("stackbook.core.waiting.pause", lambda seconds: None)
    lines = pd.DataFrame({"service": ["reviews", "reviews", "ratings", "ratings"]})
    told = iter([lines[:2], lines[:3], lines, lines])
    found = correlation.complete(lambda: {"traces": next(told)}, wanted={"reviews": 2, "ratings": 2}, timeout=5)
    assert len(found["traces"]) == 4
    assert len(list(told)) == 1


def evidence() -> correlation.Evidence:
    lines = {"logs": correlation.from_log(log()), "traces": correlation.from_spans(spans())}
    return correlation.Evidence(correlation.from_client(client(), "reviews"), counted(), lines, log(), spans())


def test_evidence_counts_the_client_only_where_it_asked_itself() -> None:
    assert list(evidence().table("reviews").columns) == [
        *request_keys.KEYS,
        "client",
        "metrics",
        "logs",
        "traces",
        "all agree",
    ]
    assert list(evidence().table("ratings").columns) == [*request_keys.KEYS, "metrics", "logs", "traces", "all agree"]
    assert evidence().missed() == {"logs": [], "traces": []}


def test_the_story_is_of_a_request_with_that_answer() -> None:
    assert set(evidence().story(version="v3", status=404)["status"]) == {404}
    with pytest.raises(CheckFailed, match="no request was answered with 500 by v1"):
        evidence().story(version="v1", status=500)
