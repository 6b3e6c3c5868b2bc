"""The systems' own web pages in a real browser: Prometheus and the logs as `stackbook open` shows them, and the lab's Gitea.

Each is looked at twice: as it is, and with something taken away or changed, which must be noticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import lab_page
import pytest
from playwright.sync_api import Error, Page
from stackbook.artifacts.resolver import Resolver
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core.child_processes import end
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.lessons.delivery import gitea
from stackbook.mesh import istio
from stackbook.observability import metrics
from stackbook.observability.logs import client, queries

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


@contextlib.contextmanager
def opened(name: str, log: Path) -> Iterator[str]:
    """The address that `stackbook open NAME` prints, as long as the block runs; Ctrl-C ends the command."""
    command = [sys.executable, "-m", "stackbook", "open", name]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next((line.strip() for line in lines if line.startswith("http://127.0.0.1:")), "")
        assert address, log.read_text()
        yield address
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, log.read_text()
    finally:
        end(process)
        if process.stdout:
            process.stdout.close()


# Prometheus


@pytest.fixture(scope="module")
def lab() -> Lab:
    found = Lab.open("10-metrics")
    if not found.kubeconfig.exists():
        reason = "the lab does not run: stackbook run --to 05"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    lab_page.demand_chromium()
    return found


@pytest.fixture(scope="module")
def prometheus(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus as chapter 10 installs it, and the address of its page; nobody else kills it meanwhile."""
    scrape = CHAPTER_PARAMETERS["10-metrics"]().model_dump()["scrape_seconds"]
    with lab.turn("its page", of=metrics.PROMETHEUS):
        metrics.install(lab, metrics.vocabulary(lab), scrape=scrape, retention_hours=24)
        with metrics.opened(lab.kube) as client:
            metrics.wait_complete(lab, client)
        with opened("prometheus", tmp_path_factory.mktemp("open") / "open.log") as address:
            yield address


def draw(page: Page, address: str, picture: Path | None = None, *, seconds: float = 30) -> set[str]:
    """Open the page with a query, look at its graph, and return the series that its legend names."""
    page.set_default_timeout(1000 * seconds)
    page.goto(f"{address}?g0.expr={QUERY}&g0.tab=graph&g0.range_input=10m")
    page.wait_for_selector(".uplot canvas")
    page.wait_for_function(f"() => ({COLOURED})(document.querySelector('.uplot canvas')) > 100")
    page.wait_for_selector("text=/job=.?.?prometheus/")
    if picture:
        page.screenshot(path=str(picture))
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


# Logs


@pytest.fixture(scope="module")
def logs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the logs' page, as long as the module's tests run."""
    if not lab.kube.kubectl("get", "statefulset/elasticsearch", "-n", "logging", check=False).ok:
        reason = "the lab has no Elasticsearch: stackbook run --only 12"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with opened("logs", tmp_path_factory.mktemp("open") / "open.log") as address:
        yield address


def search(page: Page, address: str, text: str, picture: Path | None = None, *, seconds: float = 30) -> str:
    """Search the last hour for a request's id on the page; returns what the page shows once it has lines with it."""
    page.set_default_timeout(1000 * seconds)
    query = quote(f'request_id:="{text}"')
    page.goto("about:blank")  # else a new address behind the # does not load the page again
    page.goto(f"{address}#/?query={query}&g0.range_input=1h&g0.relative_time=last_1_hour")
    page.wait_for_selector("text=/GET .*productpage.* 200/ >> nth=0")
    if picture:
        page.screenshot(path=str(picture))
    return page.locator("body").inner_text()


def test_the_page_for_logs_finds_the_lines_of_a_request(
    lab: Lab, logs: str, pictures: Path, tmp_path: Path
) -> None:  # fmt: skip
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/select/vmui/", logs)
    # The gateway gives each request an id of its own, so the request is recognised by its path.
    path = f"/productpage?look={uuid.uuid4()}"
    assert httpx.get(f"{lab.ingress}{path}", timeout=20, trust_env=False).status_code == 200
    with client.opened(lab.kube) as store:
        logged = {"term": {"access.path": path}}
        first = until(lambda: store.newest(logged, 1), what="the request to be logged", timeout=90)
        request = first[0]["request_id"]
        queries.wait_access(store, [request], service="productpage", timeout=60)

        def in_both() -> list[dict[str, str]]:
            """The lines of the request on the page, as soon as it has as many as Elasticsearch."""
            found = httpx.post(logs.replace("/select/vmui/", "/select/logsql/query"), trust_env=False, timeout=20,
                               data={"query": f'request_id:="{request}"'}).text.splitlines()  # fmt: skip
            same = len(found) == store.count({"term": {"request_id": request}})
            return [json.loads(line) for line in found] if same else []

        lines = until(in_both, what="the page to have the lines that Elasticsearch has", timeout=60, every=2)
    services = {line["service"] for line in lines}
    assert {"productpage", "details", "reviews"} <= services
    with lab_page.browser(tmp_path) as page:
        shown = search(page, logs, request, pictures / "logs-request.png")
        assert all(line["_msg"] in shown for line in lines), shown
        with pytest.raises(Error, match="Timeout"):  # an id that nobody sent
            search(page, logs, str(uuid.uuid4()), seconds=6)


# Gitea


@pytest.fixture(scope="module")
def parts() -> gitea.Parts:
    lab_page.demand_chromium()
    resolver = Resolver.open()
    return replace(gitea.Parts.of(resolver), pages=resolver.path("gitea-pages"))


def sign_in(page: Page, server: gitea.Gitea, picture: Path | None = None) -> None:
    """Sign in on Gitea's page; fails unless all that the page loads is there, its styles apply, and its scripts run."""
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    page.goto(f"{server.url}/user/login")
    page.wait_for_load_state("networkidle")
    if picture:
        page.screenshot(path=str(picture))
    assert refused == []
    button = page.locator("form button.primary.button")
    assert button.evaluate("b => getComputedStyle(b).backgroundColor") == "rgb(65, 131, 196)"
    assert page.evaluate("() => Boolean(customElements.get('overflow-menu'))"), "its scripts define its own elements"
    page.fill("#user_name", gitea.USER)
    page.fill("#password", server.password.reveal())
    button.click()
    page.wait_for_selector(".page-content.dashboard")
    page.wait_for_selector(f"text={gitea.USER} >> visible=true >> nth=0")
    assert refused == []


def test_giteas_page_has_its_styles_and_scripts(parts: gitea.Parts, pictures: Path, tmp_path: Path) -> None:
    with gitea.running(parts) as server, lab_page.browser(tmp_path) as page:
        sign_in(page, server, pictures / "gitea-login.png")
        page.screenshot(path=str(pictures / "gitea-dashboard.png"))


def test_a_gitea_without_its_pages_is_noticed(parts: gitea.Parts, tmp_path: Path) -> None:
    with (
        gitea.running(replace(parts, pages=None)) as server,
        lab_page.browser(tmp_path) as page,
        pytest.raises(AssertionError, match="/assets/"),
    ):
        sign_in(page, server)
