"""Prometheus' own page in a real browser, as `stackbook open` shows it: as it is, and without its scripts, which must be noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lab_page
import pytest
from playwright.sync_api import Error, Page
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.lab.lab import Lab
from stackbook.mesh import istio
from stackbook.observability import metrics

pytestmark = [pytest.mark.browser, pytest.mark.slow]

QUERY = "sum by (job) (up)"
# How many points of a graph have a colour: a canvas on which nothing was drawn has none.
COLOURED = """canvas => {
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] > 128 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60)
            count++;
    return count;
}"""


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab_page.demand_chromium()
    return lab_page.demand_lab("10-metrics")


@pytest.fixture(scope="module")
def prometheus(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus as chapter 10 installs it, and the address of its page; nobody else kills it meanwhile."""
    scrape = CHAPTER_PARAMETERS["10-metrics"]().model_dump()["scrape_seconds"]
    with lab.turn("its page", of=metrics.PROMETHEUS):
        metrics.install(lab, metrics.vocabulary(lab), scrape=scrape, retention_hours=24)
        with metrics.opened(lab.kube) as client:
            metrics.wait_complete(lab, client)
        with lab_page.opened("prometheus", tmp_path_factory.mktemp("open") / "open.log") as address:
            yield address


def draw(page: Page, address: str, picture: Path | None = None, *, seconds: float = 30) -> set[str]:
    """Open the page with a query, look at its graph, and return the series that its legend names."""
    page.set_default_timeout(1000 * seconds)
    page.goto(f"{address}?g0.expr={QUERY}&g0.tab=graph&g0.range_input=10m")
    page.wait_for_selector(".uplot canvas")
    page.wait_for_function(f"() => ({COLOURED})(document.querySelector('.uplot canvas')) > 100")
    page.wait_for_selector("text=/job=.?.?prometheus/")
    if picture:
        tab = page.get_by_role("tab", name="Graph")
        lab_page.picture(page, picture, page.locator(".cm-content"), tab, page.locator(".uplot canvas"))
    return set(re.findall(r'job="?([a-z]+)"?', page.locator("main").inner_text()))


def test_prometheus_shows_the_graph_of_a_query(lab: Lab, prometheus: str, pictures: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/query", prometheus)
    with lab_page.browser(tmp_path) as page:
        drawn = draw(page, prometheus, pictures / "prometheus-query.png")
    with metrics.opened(lab.kube) as client:
        asked = set(client.query(QUERY)["job"])
    assert drawn == asked == set(metrics.JOBS)
    listed = subprocess.run(
        [sys.executable, "-m", "stackbook", "open"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert re.search(r"^prometheus +10 +ready ", listed, re.MULTILINE), listed


def test_a_prometheus_without_its_scripts_shows_no_graph(lab: Lab, prometheus: str, tmp_path: Path) -> None:
    def move(old: str, new: str) -> None:
        folder = "/static/mantine-ui"
        lab.kube.exec(istio.NAMESPACE, "deploy/prometheus", "mv", f"{folder}/{old}", f"{folder}/{new}")

    move("assets", "gone")
    try:
        with lab_page.browser(tmp_path) as page, pytest.raises(Error, match="Timeout"):
            draw(page, prometheus, seconds=6)
    finally:
        move("gone", "assets")
