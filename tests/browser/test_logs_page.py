"""The page for logs in a real browser, as `stackbook open` shows it: it has the lines of one request, and none of another.

It runs after the tests that stop Elasticsearch and shippers.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import lab_page
import pytest
from playwright.sync_api import Error, Page
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.observability.logs import client, queries

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab_page.demand_chromium()
    return lab_page.demand_lab("12-logs")


@pytest.fixture(scope="module")
def logs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the logs' page, as long as the module's tests run."""
    if not lab.kube.kubectl("get", "statefulset/elasticsearch", "-n", "logging", check=False).ok:
        reason = "the lab has no Elasticsearch: stackbook run --only 12"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with lab_page.opened("logs", tmp_path_factory.mktemp("open") / "open.log") as address:
        yield address


def search(page: Page, address: str, text: str, picture: Path | None = None, *, seconds: float = 30) -> str:
    """Search the last hour for a request's id on the page; returns what the page shows once it has lines with it."""
    page.set_default_timeout(1000 * seconds)
    query = quote(f'request_id:="{text}"')
    page.goto("about:blank")  # else a new address behind the # does not load the page again
    page.goto(f"{address}#/?query={query}&g0.range_input=1h&g0.relative_time=last_1_hour")
    page.wait_for_selector("text=/GET .*productpage.* 200/ >> nth=0")
    if picture:
        lines = page.get_by_text(re.compile("GET .*productpage.* 200"))
        lab_page.picture(page, picture, page.locator("textarea"), page.get_by_text("Total:"), lines)
    return page.locator("body").inner_text()


def test_the_page_for_logs_finds_the_lines_of_a_request(
    lab: Lab, logs: str, pictures: Path, tmp_path: Path
) -> None:  # fmt: skip
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/select/vmui/", logs)
    # The gateway gives each request an id of its own, so the request is recognised by its path.
    path = f"/productpage?look={uuid.uuid4()}"
    with lab.turn("a request for the page of the logs"):
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
