"""Zipkin's page for the traces in a real browser, as `stackbook open` shows it: it has the spans of one request, as Jaeger has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import lab_page
import pytest
from playwright.sync_api import Error, Page
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.observability import tracing
from stackbook.observability.tracing.trace_page import SELECTOR

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab_page.demand_chromium()
    return lab_page.demand_lab("11-tracing")


@pytest.fixture(scope="module")
def traces(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the traces' page, as long as the module's tests run; afterwards its pod is gone."""
    if not lab.kube.kubectl("get", "deployment/jaeger", "-n", "istio-system", check=False).ok:
        reason = "the lab has no Jaeger: stackbook run --only 11"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with lab_page.opened("traces", tmp_path_factory.mktemp("open") / "open.log") as address:
        yield address
    assert lab.kube.pods("istio-system", SELECTOR) == []


def look(page: Page, address: str, trace: str, picture: Path | None = None, *, seconds: float = 30) -> str:
    """Open a trace by its id; returns the page's text once it shows the services of the trace."""
    page.set_default_timeout(1000 * seconds)
    page.goto(f"{address}traces/{trace}")
    page.wait_for_selector("text=productpage.default >> nth=0")
    if picture:
        call = page.get_by_text(re.compile(r"productpage\.default: reviews"))
        lab_page.picture(page, picture, page.get_by_placeholder("trace ID"), page.get_by_text("Total Spans"), call)
    return page.locator("body").inner_text()


def test_the_page_for_traces_shows_the_spans_of_a_request(
    lab: Lab, traces: str, pictures: Path, tmp_path: Path
) -> None:  # fmt: skip
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/zipkin/", traces)
    probe = tracing.Probe(f"{lab.ingress}/productpage")
    with lab.turn("a request for the page of the traces"):
        sent = httpx.get(probe.url, headers={"traceparent": probe.traceparent}, timeout=20, trust_env=False)
        assert sent.status_code == 200
    api = traces.replace("/zipkin/", f"/api/v2/trace/{probe.trace_id}")

    def copied() -> set[str]:
        answer = httpx.get(api, timeout=20, trust_env=False)
        return {span["id"] for span in answer.json()} if answer.status_code == 200 else set()

    with tracing.Jaeger(lab.kube) as jaeger:
        jaeger.wait([probe.trace_id], lambda found: len(found) >= 6, what="the trace to be in Jaeger", timeout=180)

        def same() -> set[str]:
            """The services of the trace. Jaeger is asked each time, because a proxy sends its spans up to some seconds late."""
            spans = jaeger.traces([probe.trace_id])
            return set(spans["service"]) if copied() == set(spans["span_id"]) else set()

        def last() -> str:
            return f"Zipkin {len(copied())} spans, Jaeger {len(jaeger.traces([probe.trace_id]))}"

        services = until(same, what="Zipkin to have the spans that Jaeger has", timeout=120, every=1, last=last)
    with lab_page.browser(tmp_path) as page:
        shown = look(page, traces, probe.trace_id, pictures / "traces-request.png")
        assert services <= {word.lower() for word in re.findall(r"[\w.-]+", shown)}, shown
        with pytest.raises(Error, match="Timeout"):  # a trace that nobody has
            look(page, traces, tracing.Probe(probe.url).trace_id, seconds=6)
