"""Spans as a table, what a trace must look like, and what an outage took: pure functions."""

import pandas as pd
import pytest
from stackbook.core.errors import StackbookError
from stackbook.observability.tracing import observation, span_table, trace_tree

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = "3f1c5e3a-8d1b-4c53-9d42-6a1f0b7c9e11"


def span(id, parent, service, kind, target, *, start=0.0, took=1.0, status="200", trace=TRACE, **tags):
    """A span as Jaeger's API has it; times in milliseconds."""
    values = {
        "span.kind": kind,
        "http.status_code": status,
        "guid:x-request-id": REQUEST[:14] + "9" + REQUEST[15:],
        "response_flags": "-",
        "istio.canonical_revision": "v3",
        "node_id": f"sidecar~10.244.1.7~{service}-v3-5d6f-x.default~default.svc.cluster.local",
        **({"error": True} if status.startswith("5") else {}),
        **tags,
    }
    references = [{"refType": "CHILD_OF", "traceID": trace, "spanID": parent}] if parent else []
    made = {
        "traceID": trace.lstrip("0"),
        "spanID": id,
        "operationName": f"{target}.default.svc.cluster.local:9080/*",
        "references": references,
        "startTime": 1_700_000_000_000_000 + round(start * 1000),
        "duration": round(took * 1000),
        "tags": [{"key": key, "type": "string", "value": value} for key, value in values.items()],
        "processID": "p1",
    }
    return {"traceID": trace, "spans": [made], "processes": {"p1": {"serviceName": f"{service}.default", "tags": []}}}


def good():
    return [
        span("a1", SENDER, "load", "client", "reviews", start=0, took=10),
        span("a2", "a1", "reviews", "server", "reviews", start=1, took=8),
        span("a3", "a2", "reviews", "client", "ratings", start=2, took=4),
        span("a4", "a3", "ratings", "server", "ratings", start=3, took=2),
    ]


WANTED = trace_tree.hop("load", "reviews", trace_tree.hop("reviews", "ratings"))


def found(traces, **more):
    parents = {"parent_id": SENDER, **more}
    return trace_tree.problems(span_table.parse(traces), WANTED, **parents)


def test_a_span_becomes_a_row():
    row = span_table.parse([span("1", "2", "reviews", "server", "reviews", start=5, took=7)]).iloc[0]
    assert (row.trace_id, row.span_id, row.parent_id) == (TRACE, "1".zfill(16), "2".zfill(16))
    assert (row.service, row.app, row.kind, row.status, row["flags"], row.error) == (
        "reviews.default", "reviews", "server", 200, "-", False)  # fmt: skip
    assert (row.request_id, row.decision) == (REQUEST, "sampled")
    assert (row.version, row.pod) == ("v3", "reviews-v3-5d6f-x")
    assert row.seconds == pytest.approx(0.007) and row.start == pytest.approx(1_700_000_000.005, abs=1e-6)


def test_a_span_given_twice_counts_once_and_none_makes_an_empty_table():
    assert len(span_table.parse([*good(), *good()])) == 4
    assert list(span_table.parse([]).columns) == list(span_table.COLUMNS)


def test_another_answer_is_an_error():
    with pytest.raises(StackbookError, match="not a list of traces"):
        span_table.parse([{"spans": [{"processID": "p1"}], "processes": {}}])


def test_the_predicted_trace_has_no_problem():
    assert found(good()) == []


def replaced(number, **changes):
    """The good trace with one span made again."""
    arguments = [
        {"id": "a1", "parent": SENDER, "service": "load", "kind": "client", "target": "reviews", "start": 0, "took": 10},
        {"id": "a2", "parent": "a1", "service": "reviews", "kind": "server", "target": "reviews", "start": 1, "took": 8},
        {"id": "a3", "parent": "a2", "service": "reviews", "kind": "client", "target": "ratings", "start": 2, "took": 4},
        {"id": "a4", "parent": "a3", "service": "ratings", "kind": "server", "target": "ratings", "start": 3, "took": 2},
    ]  # fmt: skip
    arguments[number].update(changes)
    return [span(**a) for a in arguments]


BROKEN = {
    "a span is missing": (good()[:3], "no span ratings.default server"),
    "a superfluous span": ([*good(), span("a5", "a2", "reviews", "client", "ratings")], "superfluous"),
    "another parent": (replaced(3, parent="a1"), "no span ratings.default server"),
    "no parent": (replaced(2, parent=""), "no span reviews.default client"),
    "another sender": (replaced(0, parent="ffff"), "no span load.default client"),
    "another service": (replaced(3, service="details"), "no span ratings.default server"),
    "another operation": (replaced(3, target="details"), "no span ratings.default server"),
    "another kind": (replaced(3, kind="client"), "no span ratings.default server"),
    "another status": (replaced(3, status="503"), "status 503"),
    "flags": (replaced(2, response_flags="FI"), "flags FI"),
    "an error that is none": (replaced(3, error=True), "error mark"),
    "it ends too late": (replaced(3, took=200), "extends beyond reviews.default client ratings by"),
    "it begins too early": (replaced(1, start=-100, took=105), "extends beyond load.default client reviews by 0.100"),
    "two traces": (replaced(3, trace="1" * 32), "2 traces"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_trace_is_noticed(name):
    traces, words = BROKEN[name]
    assert any(words in problem for problem in found(traces)), found(traces)


def test_an_abort_is_one_span_at_the_caller():
    hop = trace_tree.hop("load", "reviews", status=500, flags="FI", reached=False)
    frame = span_table.parse([span("a1", SENDER, "load", "client", "reviews", status="500", response_flags="FI")])
    assert trace_tree.problems(frame, hop, parent_id=SENDER) == []
    assert trace_tree.problems(span_table.parse(good()), hop, parent_id=SENDER)


def test_the_outline_is_the_tree_without_what_differs_from_run_to_run():
    lines = [row["span"] for row in trace_tree.outline(span_table.parse(good()))]
    assert lines == ["load → reviews", "  reviews", "    reviews → ratings", "      ratings"]
    assert [row["span"] for row in trace_tree.outline_of(WANTED)] == lines


def test_edges_are_calls_between_services():
    frame = trace_tree.edges(
        span_table.parse([*good(), *[span("b4", "a3", "ratings", "server", "ratings", status="500")]])
    )
    assert frame[["caller", "callee", "calls", "errors"]].values.tolist() == [
        ["load.default", "reviews.default", 1, 0],
        ["reviews.default", "ratings.default", 2, 1],
    ]


def test_a_gap_is_counted_and_dated():
    sent = pd.DataFrame({"started": [0.0, 1.0, 2.0, 3.0], "request_id": [f"{n}" * 36 for n in "5678"]})
    sent.attrs["began"] = 100.0
    there = pd.DataFrame({"request_id": [span_table.plain_id(f"{n}" * 36) for n in "58"]})
    gap, marked = observation.gap(sent, there)
    assert (gap.requests, gap.missing, gap.since, gap.until) == (4, 2, 101.0, 102.0)
    assert marked["traced"].tolist() == [True, False, False, True]
    assert gap.row(100.0)["from second"] == 1.0
    whole, _ = observation.gap(sent[:1], there)
    assert (whole.missing, whole.row(100.0)["to second"]) == (0, "")


def test_a_trace_that_is_gone_is_named():
    assert observation.survived([TRACE, "gone"], span_table.parse(good())) == ["gone"]


def test_pages_are_whole_when_each_has_the_spans_of_its_version():
    def pages(versions, lost=0):
        made = []
        for n, version in enumerate(versions):
            rest = observation.SPANS[version] - 1 - lost
            tags = {"trace": f"{n + 1}" * 32, "istio.canonical_revision": version}
            made += [span("a0", "", "reviews", "server", "reviews", **tags)]
            made += [span(f"b{i}", "a0", "details", "server", "details", **tags) for i in range(rest)]
        return span_table.parse(made)

    assert observation._whole(pages(["v1", "v2", "v3"]), 3)
    assert not observation._whole(pages(["v1", "v2", "v3"], lost=1), 3)
    assert observation._whole(pages(["v1", "v2", "v2"]), 3)
    assert not observation._whole(pages(["v1", "v2", "v3"]), 4)
    assert not observation._whole(pages([]), 3)
