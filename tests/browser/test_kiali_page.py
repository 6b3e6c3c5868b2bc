"""Kiali's page in a real browser, as `stackbook open` shows it: its graph is chapter 10's, and without the rules it is empty."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import lab_page
import pytest
from playwright.sync_api import Error, Page
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import beside, until
from stackbook.lab.lab import Lab
from stackbook.observability import metrics
from stackbook.observability.metrics import kiali
from stackbook.observability.metrics.kiali import Kiali

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOPS = [("istio-ingressgateway", "productpage"), ("productpage", "details"), ("productpage", "reviews"),
        ("reviews", "ratings")]  # fmt: skip
EVERY, WINDOW = 0.2, 45.0
"""Seconds from page to page, and in which requests count."""
TOLERANCE = 0.2


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab_page.demand_chromium()
    found = lab_page.demand_lab("10-metrics")
    if not kiali.at_hand(found) and not os.environ.get("CI"):  # CI builds it: that takes some minutes
        pytest.skip(f"Kiali is not built yet: stackbook fetch {' '.join(kiali.PARTS)}")
    return found


@pytest.fixture(scope="module")
def alone(lab: Lab) -> Iterator[None]:
    """Nobody else uses bookinfo or kills Prometheus, which is as chapter 10 installs it."""
    scrape = CHAPTER_PARAMETERS["10-metrics"]().model_dump()["scrape_seconds"]
    with lab.turn("Kiali's page"), lab.turn("Kiali's page", of=metrics.PROMETHEUS):
        metrics.install(lab, metrics.vocabulary(lab), scrape=scrape, retention_hours=24)
        with metrics.opened(lab.kube) as prometheus:
            metrics.wait_complete(lab, prometheus)
        yield


@contextmanager
def visitors(lab: Lab) -> Iterator[list[int]]:
    """Somebody asks for a page every fifth of a second while the block runs; the list has the status of each answer."""
    seen: list[int] = []

    def visit(stop: threading.Event) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not stop.wait(EVERY):
                try:
                    seen.append(client.get(f"{lab.ingress}/productpage").status_code)
                except httpx.TransportError:
                    seen.append(0)

    with beside(visit, name="visitors", timeout=30):
        yield seen


@pytest.fixture(scope="module")
def page(lab: Lab, alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Kiali's graph with some visitors' traffic, as long as the module's tests run; afterwards nothing is left."""
    with lab_page.opened("kiali", tmp_path_factory.mktemp("open") / "open.log") as address, visitors(lab):
        yield address
    pods = ("get", "pods", "-n", kiali.NAMESPACE, "-l", kiali.SELECTOR)
    until(lambda: not lab.kube.json(*pods)["items"], what="Kiali's pods to end", timeout=60, every=1)
    left = lab.kube.kubectl("get", "clusterrole,clusterrolebinding", "-l", "app=kiali", "-o", "name")
    assert left.stdout.strip() == "", "its rights go with the page"
    assert not lab.kube.kubectl("get", "svc/kiali", "-n", kiali.NAMESPACE, check=False).ok


def draw(page: Page, address: str, picture: Path | None = None, *, seconds: float = 60) -> str:
    """Open the graph; returns the page's text once it has a name of each hop."""
    page.set_default_timeout(1000 * seconds)
    page.goto(address)
    names = sorted({name for hop in HOPS for name in hop})
    page.wait_for_function(f"() => {names}.every(name => document.body.innerText.includes(name))")
    if picture:
        marks = ("Versioned app graph", "Last 1m", "HTTP (requests per second):")
        lab_page.picture(page, picture, *(page.get_by_text(mark) for mark in marks))
    return page.locator("body").inner_text()


@pytest.mark.more
def test_without_the_rules_there_are_no_edges(lab: Lab, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: Kiali asks the lab's own Prometheus. It is the first test, because a second Kiali replaces the first."""
    if not lab.images.upstream_envoy:
        pytest.skip("Istio's own proxies count istio_requests_total themselves: there are no rules")
    monkeypatch.setattr(type(lab.images), "upstream_envoy", property(lambda _images: False))
    with kiali.running(lab) as bare, visitors(lab) as seen:
        assert bare.rules is None
        with pytest.raises(WaitTimeout, match="no edges"):
            bare.wait_edges(HOPS, timeout=40)
        assert seen.count(200) > 40, f"there was traffic: {len(seen)} pages"


@pytest.mark.more
def test_it_is_opened_on_loopback_with_every_edge(lab: Lab, page: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/kiali/console/graph/namespaces\?namespaces=default&.*", page)
    found = Kiali(page.partition("/console")[0])
    assert found.version() == lab.artifacts.version("kiali") or lab.images.sources.pulled("kiali")
    found.wait_edges(HOPS, timeout=120)  # it fails unless each is there


@pytest.mark.more
def test_its_rates_are_those_of_chapter_10(lab: Lab, page: str) -> None:
    """Chapter 10 itself compares them, too, and CI runs that."""
    found = Kiali(page.partition("/console")[0])
    found.wait_edges(HOPS, timeout=120)
    began = time.time()
    until(lambda: time.time() - began > WINDOW + kiali.SETTLED, what="a window of even traffic", timeout=120, every=1)
    with metrics.opened(lab.kube) as prometheus:
        both = kiali.compared(found, prometheus, metrics.vocabulary(lab), window=WINDOW).set_index(
            ["source", "destination"]
        )
    assert set(HOPS) <= set(both.index), both
    wrong = {
        hop: tuple(both.loc[hop])
        for hop in HOPS
        if abs(both.loc[hop, "Kiali"] / both.loc[hop, "chapter"] - 1) > TOLERANCE
    }
    assert not wrong, f"chapter 10 and Kiali: {wrong}"


def test_the_page_draws_bookinfos_services(page: str, pictures: Path, tmp_path: Path) -> None:
    with lab_page.browser(tmp_path) as browser:
        shown = draw(browser, page, pictures / "kiali-graph.png")
        assert "Versioned app graph" in shown and "anonymous" in shown
        browser.goto("about:blank")
        with pytest.raises(Error, match="Timeout"):  # a namespace without traffic
            draw(browser, page.replace("namespaces=default", "namespaces=kube-public"), seconds=10)
