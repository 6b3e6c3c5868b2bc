"""Access logs, numbered lines and pulses: what is made of documents, and what is wrong with them."""

import time
from datetime import datetime, timezone
from types import SimpleNamespace

import elasticsearch
import pandas as pd
import pytest
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.observability.logs import client, figures, generators, loss_accounting, queries, retention

ID = "01234567-89ab-{}def-8123-456789abcdef"


def entry(service="reviews", direction="inbound", version="9", **more):
    return {
        "service": service, "version": "v1", "request_id": ID.format("4"), "kubernetes": {"pod": f"{service}-v1-x"},
        "access": {"start": "2026-11-23T08:00:00.250Z", "direction": direction, "status": 200, "flags": "-",
                   "path": "/reviews/0", "milliseconds": 12, **more},
    }  # fmt: skip


class Store:
    """Answers each search with these documents; remembers the queries."""

    def __init__(self, *documents, buckets=()):
        self.found, self.queries, self.buckets = list(documents), [], list(buckets)

    def documents(self, query, *, fields=(), most=0):
        self.queries.append(query)
        return self.found

    def aggregate(self, query, **aggregations):
        self.queries.append(aggregations)
        return {"parts": {"buckets": self.buckets}}


def test_access_log_has_the_columns_that_it_promises():
    frame = queries.access_log(Store(entry()), requests=[ID.format("9")])
    assert tuple(frame.columns) == queries.COLUMNS
    row = frame.iloc[0]
    assert row["time"] == pytest.approx(datetime(2026, 11, 23, 8, tzinfo=timezone.utc).timestamp() + 0.25)
    assert (row["status"], row["seconds"], row["pod"]) == (200, 0.012, "reviews-v1-x")
    assert row["request_id"] == ID.format("4")


def test_access_log_without_a_line_is_an_empty_table():
    assert tuple(queries.access_log(Store()).columns) == queries.COLUMNS


def test_ids_are_asked_for_without_envoys_note_and_not_too_many_at_once():
    store = Store()
    ids = [f"{n:08d}-89ab-9def-8123-456789abcdef" for n in range(10_000)]
    queries.access_log(store, requests=[*ids, ids[0]])
    asked = [q["bool"]["filter"][-1]["terms"]["request_id"] for q in store.queries]
    assert [len(part) for part in asked] == [5000, 5000]
    assert asked[0][0] == "00000000-89ab-4def-8123-456789abcdef"


def test_a_page_is_there_once_each_service_that_it_asked_has_its_line():
    """ratings is asked by v2 and v3 of reviews only; the lines come service by service."""
    starred = {"version": "v2", "request_id": ID.format("4")}
    plain = {"request_id": ID.format("4").replace("cdef", "0000")}
    asked = [starred["request_id"], plain["request_id"]]
    pages = [entry(service) | one for service in ("details", "productpage", "reviews") for one in (plain, starred)]
    store = Store(*pages)
    with pytest.raises(WaitTimeout, match="1 of 1 requests are in no line of ratings"):
        queries.wait_pages(store, asked, timeout=0.1)
    store.found.append(entry("ratings") | {"request_id": starred["request_id"]})
    assert queries.wait_pages(store, asked, timeout=0.1)["service"].value_counts().to_dict() == {
        "details": 2, "productpage": 2, "reviews": 2, "ratings": 1,
    }  # fmt: skip


def test_a_time_window_is_asked_for_in_utc():
    assert queries.between(0, 60) == {
        "range": {"@timestamp": {"gte": "1970-01-01T00:00:00+00:00", "lt": "1970-01-01T00:01:00+00:00"}}
    }
    assert list(queries.between(None, 60)["range"]["@timestamp"]) == ["lt"]


def test_histogram_is_one_row_per_bar():
    store = Store(
        buckets=[
            {"key": "reviews", "time": {"buckets": [{"key": 10_000, "doc_count": 3}, {"key": 20_000, "doc_count": 1}]}}
        ]
    )
    frame = queries.histogram(store, {"match_all": {}}, seconds=10)
    assert frame.to_dict("list") == {"time": [10.0, 20.0], "value": ["reviews"] * 2, "lines": [3, 1]}
    panels = figures.bars(frame, seconds=10, title="x").axes
    assert [axes.get_ylabel() for axes in panels] == ["reviews"]
    assert panels[-1].get_xlabel() == "time in s; lines in 10 s"


def lines(*pairs):
    return pd.DataFrame(
        [(node, number, f"{node}{n}", float(n)) for n, (node, number) in enumerate(pairs)],
        columns=["node", "number", "id", "time"],
    )


def test_all_lines_once_is_no_problem():
    assert loss_accounting.problems(lines(("a", 1), ("a", 2), ("b", 1)), {"a": 2, "b": 1}) == []


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ((("a", 1), ("b", 1)), "a: 1 of 2 lines missing: 2"),
        ((("a", 1), ("a", 2)), "b: 1 of 1 lines missing: 1"),
        ((("a", 1), ("a", 2), ("a", 2), ("b", 1)), "a: 1 lines arrived more than once: 2"),
        ((("a", 1), ("a", 2), ("b", 1), ("c", 1)), "lines from machines that wrote none: c"),
    ],
)
def test_what_is_missing_or_double_is_named(pairs, said):
    assert loss_accounting.problems(lines(*pairs), {"a": 2, "b": 1}) == [said]


def test_many_missing_lines_are_shortened():
    (said,) = loss_accounting.problems(lines(), {"a": 100})
    assert said == "a: 100 of 100 lines missing: 1, 2, 3, 4, 5 … 100"


def test_only_whole_numbered_lines_of_this_run_count():
    def document(message, number):
        return {"message": message, "node": "a", "@timestamp": "2026-11-23T08:00:00Z", "_id": str(number)}

    pods = generators.Writers(None, "abcd", {"a": 2})
    store = Store(
        document("run abcd line 1 xxxx", 1),
        document("run other line 2 xxxx", 2),
        document("run abcd line 2 xx\nrun abcd", 3),
    )
    assert loss_accounting.arrived(store, pods)["number"].tolist() == [1]


def test_a_skipped_pulse_is_named():
    frame = pd.DataFrame([("a", "p", n, float(n)) for n in (3, 4, 6)], columns=["node", "pod", "number", "time"])
    assert loss_accounting.skipped(frame) == ["a: 1 pulses missing: 5"]
    assert loss_accounting.skipped(frame[frame["number"] < 5]) == []


def test_counters_of_rsyslog_are_read_and_anything_else_is_not():
    text = 'Mon Nov 23 07:00:00 2026: { "name": "omelasticsearch", "response.duplicate": 7 }'
    assert loss_accounting._counter(text)["response.duplicate"] == 7
    assert loss_accounting._counter("half a line: { ") == {}
    assert loss_accounting._counter("no counter") == {}


def test_an_index_is_named_by_its_day():
    assert retention.index_of(2, now=datetime(2026, 3, 1, tzinfo=timezone.utc)) == "logstash-2026.02.27"


def pulsing(monkeypatch, missing):
    """A machine's pulses once a second, of which those in `missing` can be found at the third look only."""
    looks = []

    def pulses(store, start, end):
        looks.append(end)
        numbers = [n for n in range(20) if start <= 1000 + n <= end and (n not in missing or len(looks) > 2)]
        return pd.DataFrame([("a", "p", n, 1000.0 + n) for n in numbers], columns=["node", "pod", "number", "time"])

    kube = SimpleNamespace(nodes=lambda: [{"metadata": {"name": "a"}}])
    clock = iter([1010.0] + [1012.0] * 1000)  # the call, and all that comes after
    monkeypatch.setattr(loss_accounting, "time", SimpleNamespace(time=lambda: next(clock), monotonic=time.monotonic))
    monkeypatch.setattr(loss_accounting, "newest", lambda store: {"a": 1012.0})
    monkeypatch.setattr(loss_accounting, "counts", lambda store: {})
    monkeypatch.setattr(loss_accounting, "pulses", pulses)
    return kube, looks


def test_what_was_refused_until_just_now_is_waited_for(monkeypatch):
    """The pulses missing are the last ones before the call: a look that ends there would not miss them."""
    kube, looks = pulsing(monkeypatch, missing={7, 8, 9, 10})
    assert loss_accounting.wait_whole(kube, None, 1000.0, timeout=20) == []
    assert len(looks) == 3


def test_what_never_comes_is_said(monkeypatch):
    kube, _ = pulsing(monkeypatch, missing={7, 8, 9, 10})
    assert loss_accounting.wait_whole(kube, None, 1000.0, timeout=0.1) == ["a: 4 pulses missing: 7, 8, 9, 10"]


def behind(monkeypatch, counted, *, until_look=10**9):
    """Two machines: the newest line of b is old until this look; `counted` are b's lines at each count."""
    looks, counts = [], iter(counted)

    def newest(store):
        looks.append(store)
        return {"a": time.time(), "b": time.time() - (60 if len(looks) <= until_look else 0)}

    monkeypatch.setattr(loss_accounting, "newest", newest)
    monkeypatch.setattr(loss_accounting, "counts", lambda store: {"a": 5, "b": next(counts)})
    monkeypatch.setattr(loss_accounting, "behind", lambda kube, store, limit: [])
    kube = SimpleNamespace(nodes=lambda: [{"metadata": {"name": name}} for name in "ab"])
    return lambda: loss_accounting.wait_current(kube, None, timeout=0.6)


def test_a_machine_whose_older_lines_come_is_waited_for_once_more(monkeypatch):
    behind(monkeypatch, [10, 400, 400], until_look=4)()
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match="each machine's newest line"):
        behind(monkeypatch, [10, 400, 400, 900])()
    assert time.monotonic() - began > 1.1, "twice, and not again"


def test_a_machine_that_sends_nothing_is_not_waited_for_again(monkeypatch):
    with pytest.raises(WaitTimeout, match="each machine's newest line"):
        behind(monkeypatch, [10, 10])()  # a third count would be an error


def test_the_traces_are_what_a_reader_knows():
    assert generators.PYTHON.startswith("Traceback (most recent call last):")
    assert "\tat " in generators.JAVA and "Caused by: " in generators.JAVA
    assert generators.GO.startswith("panic: ") and "\n\ngoroutine 1 [running]:" in generators.GO


class Starting:
    """The official client of a server whose newest index has no shard yet, for the first `times` searches."""

    def __init__(self, times, status=503):
        self.times, self.status = times, status

    def search(self, **asked):
        self.times -= 1
        if self.times >= 0:
            raise elasticsearch.ApiError("search_phase_execution_exception", SimpleNamespace(status=self.status), {})
        return {"aggregations": {"parts": {"buckets": []}}}


def test_a_search_waits_for_the_shard_of_a_new_index(monkeypatch):
    monkeypatch.setattr(client, "pause", lambda seconds: None)
    assert client.Store(Starting(2)).aggregate({}, parts={}) == {"parts": {"buckets": []}}


@pytest.mark.parametrize(("times", "status"), [(10**9, 503), (1, 400)])
def test_a_shard_that_does_not_start_and_a_refusal_are_said(monkeypatch, times, status):
    monkeypatch.setattr(client, "_STARTING", 0.05)
    monkeypatch.setattr(client, "pause", time.sleep)
    with pytest.raises(CheckFailed, match=f"answers with an error: .*{status}"):
        client.Store(Starting(times, status)).aggregate({}, parts={})


def waited(monkeypatch, *, counts, duplicates):
    """`wait_arrived` on writers of 10 lines, a look every 5 s: how many can be found, and what was sent again, look by look."""
    clock, found, again = iter(range(0, 1000, 5)), iter(counts), iter(duplicates)
    now = [0]

    def until(check, *, timeout, last, **more):
        while now[0] < timeout:
            now[0] = next(clock)
            if check():
                return
        raise WaitTimeout("the numbered lines to arrive", timeout, last=last())

    monkeypatch.setattr(loss_accounting, "until", until)
    monkeypatch.setattr(loss_accounting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loss_accounting, "statistics", lambda kube: {"m": {"duplicates": next(again)}})
    monkeypatch.setattr(loss_accounting, "lines_of", lambda writers: {})
    monkeypatch.setattr(loss_accounting, "arrived", lambda store, writers: now[0])
    return loss_accounting.wait_arrived(
        SimpleNamespace(count=lambda query: next(found)), SimpleNamespace(kube=None, lines=10), timeout=240, quiet=20
    )


def test_lines_are_waited_for_while_a_shipper_is_busy_with_older_ones(monkeypatch):
    assert waited(monkeypatch, counts=[4] * 30 + [10], duplicates=range(0, 10**6, 10**4)) == 150


def test_they_are_not_waited_for_once_the_shippers_are_quiet(monkeypatch):
    assert waited(monkeypatch, counts=[4] * 100, duplicates=[5] * 100) == 50


def test_a_shipper_that_is_never_quiet_ends_at_the_deadline_with_what_it_counted(monkeypatch):
    with pytest.raises(WaitTimeout, match=r"4 of 10; \{'m': \{'duplicates'"):
        waited(monkeypatch, counts=[4] * 100, duplicates=range(0, 10**6, 10**4))


def test_a_busy_machine_is_known_by_its_own_lateness() -> None:
    idle = pd.DataFrame({"pod": ["a", "b", "a", "b"], "time": [0.0, 0.3, 1.02, 1.3], "number": [1, 1, 2, 2]})
    idle.attrs["search"] = 0.03
    assert loss_accounting.late_by_itself(idle) == pytest.approx(0.05)
    busy = pd.DataFrame({"pod": ["a", "a", "b"], "time": [3.5, 0.0, 0.1], "number": [2, 1, 1]})
    busy.attrs["search"] = 0.4
    assert loss_accounting.late_by_itself(busy) == pytest.approx(2.9)
    assert loss_accounting.late_by_itself(busy.head(1)) == pytest.approx(0.4)


def test_lost_lines_and_slow_searches_are_not_a_busy_machine() -> None:
    lost = pd.DataFrame({"pod": ["a", "a"], "time": [0.0, 4.0], "number": [1, 5]})
    assert loss_accounting.late_by_itself(lost) == 0.0
    lost.attrs["search"] = 60.0
    assert loss_accounting.late_by_itself(lost) == 3.0
