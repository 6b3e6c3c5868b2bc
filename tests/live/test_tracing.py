"""Chapter 11's own checks notice when tracing does something else than the page says.

Jaeger is deployed once, by the chapter's own cells. As they stand the steps pass; with one change to what a step does
(never to what it predicts), or with something in the lab broken on purpose, its check must fail.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import mutate
import pytest
from labtools import sample
from stackbook.app import checks
from stackbook.core.errors import CheckFailed, StackbookError, WaitTimeout
from stackbook.lab.lab import Lab
from stackbook.observability import tracing
from stackbook.observability.tracing import outages, span_table, telemetry
from stackbook.traffic.load_client import Group, Plan, from_mesh, send
from stackbook.traffic.testbed import Testbed

pytestmark = pytest.mark.live
NOTHING = "__import__('contextlib').nullcontext()"
"""Stands for a context that does nothing."""
IN_TIME = tracing.Jaeger.wait.__kwdefaults__
SOON = 3.0
"""Seconds that spans are waited for where they never come."""
TO = 'rules.virtual_service("reviews", rules.route(rules.to("reviews", "{}")))'

MUTATIONS: dict[str, tuple[str, str, str, str]] = {
    "the Telemetry stays": ("telemetry", "tracing.untraced(lab.kube, drain=False)", NOTHING,
        "without a Telemetry resource the proxy has no tracer"),
    "another parent": ("one", "tracing.send(lab.kube, probe)",
                       "tracing.send(lab.kube, tracing.Probe(PAGE, probe.trace_id, request_id=probe.request_id))",
        "are as predicted, and times nest"),
    "another id": ("one", "tracing.send(lab.kube, probe)",
                   "tracing.send(lab.kube, tracing.Probe(PAGE, probe.trace_id, probe.parent_id))",
        "every span has the request id"),
    "another trace": ("one", "tracing.send(lab.kube, probe)", "tracing.send(lab.kube, tracing.Probe(PAGE))",
        "eight spans; last seen: 0 spans"),
    "another version": ("one", "SUBSETS, TO_V3", f"SUBSETS, {TO.format('v2')}",
        "the span of reviews has the version v3"),
    "a service less": ("one", "SUBSETS, TO_V3", f"SUBSETS, {TO.format('v1')}",
        "eight spans; last seen: 6 spans"),
    "an id of nobody": ("request-id", "probe.request_id, LINES", "tracing.Probe(PAGE).request_id, LINES",
        "in each log"),
    "past the gateway": ("gateway", "bookinfo.page(lab, path).ok", 'tracing.send(lab.kube, tracing.Probe(PAGE))',
        "in the gateway's log"),
    "the switch does nothing": ("propagation", 'outages.not_forwarding(lab.kube, testbed, "reviews-v3")', NOTHING,
        "trace ends at reviews"),
    "fewer calls": ("graph", "SUBSETS, TO_V3", f"SUBSETS, {TO.format('v1')}",
        "30 traces to be whole.* last seen: 180 spans"),
    "another share": ("sampling", "tracing.in_force(lab.kube, rate)", "tracing.in_force(lab.kube, min(60, 3 * rate))",
        "traced at 10 %: differs"),
    "another rule for ids": ("foretold", "tracing.sampled(lab.kube, 10)", "tracing.sampled(lab.kube, 30)",
        "exactly those predicted of 200 ids are traced"),
    "nothing forbidden": ("foretold", "sampled=False", "sampled=True",
        "the five requests with flag 00 are not traced"),
    "nothing demanded": ("foretold", "PAGE, request_id=counting.demanded()", "PAGE",
        "with a 9 in their ids to be traced.* last seen"),
    "no fault": ("fault", "SUBSETS, FAULTY", "SUBSETS, TO_V3",
        "only the user's request fails"),
    # The control's request fails as well, so its trace has fewer spans than the step waits for.
    "a fault for everybody": ("fault", 'headers={"end-user": user}, fault=FAULT', "fault=FAULT",
        "both to be in Jaeger"),
    "no delay": ("fault", ", delay_percent=100, delay_seconds=0.4", "",
        "only the user's request is found"),
    "another format": ("formats", '"Zipkin\'s JSON, port 9411": protocols.by_zipkin',
                       '"Zipkin\'s JSON, port 9411": protocols.by_otlp_http',
        "in which format each span came"),
    "istiod stays": ("istiod", "outages.without_istiod(lab.kube)", NOTHING,
        "by the old rule|is refused"),
    "spans that wait": ("latency", "set_runtime(lab.kube, LONE)",
                        'set_runtime(lab.kube, LONE | {telemetry.INTERVAL: "9000"}); pause(1.2)',
        "within 5 s|each request to be found"),
    "not killed": ("killed", "outages.kill(lab.kube, lab.machines)", "time.time(), time.time()",
        "the missing traces were sent after the kill"),
    "its disk is lost with it": ("killed", "outages.kill(lab.kube, lab.machines)",
        '(time.time(), lab.kube.kubectl("delete", "pod", "-n", "istio-system", "-l", "app=jaeger"), time.time())[::2]',
        "still there"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    """The code of each step with its claims; that of the parameters and of those cells that only define names."""
    found = mutate.by_step("11-tracing")
    rest = [
        s
        for s, tags in mutate.cells_of("11-tracing")
        if not mutate.about(s) and "parameters" not in tags and "bind(" not in s
    ]
    found["names"] = "".join(f"{s}\n" for s in rest if not re.search(r"^(lab|print)[.(]", s, re.MULTILINE))
    return found


@pytest.fixture(scope="module")
def chapter(lab: Lab, one_bench: Testbed, cells: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The chapter's names once Jaeger runs and the mesh traces everything."""
    names: dict[str, Any] = {}
    with lab.turn("what its tests begin with"):
        for name in ("parameters", "bind", "bench", "jaeger"):
            exec(cells[name], names)
        exec(cells["names"] + 'PAGE = "http://productpage:9080/productpage"', names)
        exec(
            "each, needed = alpha / 3, {rate: counting.needed(rate, alpha=alpha / 3, power=power) for rate in rates}",
            names,
        )
        tracing.in_force(lab.kube, 100)
        names["usual"] = telemetry.found(lab.kube)
        names["observation"].settled(lab.kube, names["jaeger"], traced=True)
    try:
        exec(cells["one"], names)
        yield names
    finally:
        with lab.turn("what its tests end with"):
            names["scope"].close()
            tracing.in_force(lab.kube, 100)


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest, alone: None) -> Iterator[None]:
    """After each test all requests are traced again."""
    yield
    if "chapter" in request.fixturenames:
        names = request.getfixturevalue("chapter")
        telemetry.put_back(names["lab"].kube, names["usual"], drain=False)


@pytest.mark.parametrize(
    "name",
    sample(MUTATIONS, "another parent"),
)
def test_a_step_notices(
    name: str, chapter: dict[str, Any], cells: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, old, new, words = MUTATIONS[name]
    source = cells[step]
    if "last seen" in words:
        monkeypatch.setitem(IN_TIME, "timeout", SOON)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in step {step}"
    names = chapter | ({"rates": [10]} if step == "sampling" else {})  # 100 % and 1 % are not what is changed
    try:
        with pytest.raises((CheckFailed, WaitTimeout), match=words):
            exec(source.replace(old, new), names)
    finally:
        if "held" in names:
            names["held"].close()
        if "set_runtime" in source:
            telemetry.set_runtime(names["lab"].kube, telemetry.PROMPT)


@pytest.mark.more
def test_propagation_off_is_noticed(
    chapter: dict[str, Any], cells: dict[str, str], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        monkeypatch.context() as patch,
        outages.not_forwarding(lab.kube, chapter["testbed"], "reviews-v3"),
        pytest.raises((CheckFailed, WaitTimeout), match=r"6 spans|no span"),
    ):
        patch.setitem(IN_TIME, "timeout", SOON)
        exec(cells["one"], dict(chapter))
    assert outages.forwarding(lab.kube, "reviews-v3")
    exec(cells["one"], dict(chapter))  # and is well again


@pytest.fixture
def proved(lab: Lab, chapter: dict[str, Any]) -> dict[str, Any]:
    """The chapter's postconditions by id; they hold."""
    found = {check.id: lambda check=check: check.prove(chapter["lab"]) for check in checks.of("11-tracing")}
    for prove in found.values():
        prove()
    return found


def test_a_mesh_that_traces_nothing_or_another_share_is_noticed(lab: Lab, proved: dict[str, Any]) -> None:
    with tracing.untraced(lab.kube), pytest.raises(CheckFailed, match="no tracer"):
        proved["traced"]()
    with tracing.sampled(lab.kube, 50), pytest.raises(CheckFailed, match="50 % of requests, not 100 %"):
        proved["traced"]()
    proved["traced"]()


def test_a_service_without_jaeger_behind_it_is_noticed(lab: Lab, proved: dict[str, Any]) -> None:
    service = ("patch", "service", "zipkin", "-n", "istio-system", "--type", "merge", "-p")
    lab.kube.kubectl(*service, '{"spec": {"selector": {"app": "other"}}}')
    try:
        with pytest.raises(StackbookError, match="selects pods other than"):
            proved["jaeger"]()
    finally:
        lab.kube.kubectl(*service, '{"spec": {"selector": {"app": "jaeger"}}}')
    proved["jaeger"]()


@pytest.mark.more
def test_ten_thousand_spans_are_read_and_joined_by_request_id(chapter: dict[str, Any], lab: Lab) -> None:
    """What the three witnesses need: every request of a batch, none lost, in one table."""
    began = time.time()
    plan = Plan([Group("page", "http://productpage:9080/productpage")], count=1700, rate=170)
    sent = from_mesh(send(chapter["testbed"].inside, plan))
    assert (sent["status"] == 200).all()
    wanted = set(sent["request_id"])
    deadline = time.monotonic() + 30
    found = span_table.parse([])
    while time.monotonic() < deadline and not (wanted <= set(found["request_id"]) and len(found) >= 6 * len(wanted)):
        found = tracing.spans(chapter["jaeger"], since=began - 1, services=["load.default"], request_ids=wanted)
    assert len(found) >= 10_000
    own = found[(found["service"] == "load.default") & found["request_id"].isin(wanted)]
    assert sorted(own["request_id"]) == sorted(wanted)
    assert found.groupby("trace_id").size().between(6, 8).all()
