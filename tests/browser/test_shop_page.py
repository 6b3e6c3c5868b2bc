"""The bookshop's description in a real browser, as `stackbook open shop` shows it: an order that is placed there is in the database.

It runs on a lab that has chapter 14, and places one order.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import lab_page
import pytest
from playwright.sync_api import Page
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.lessons.ecosystem.shop import deploy

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab_page.demand_chromium()
    return lab_page.demand_lab("14-ecosystem")


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the shop's page, as long as the module's tests run."""
    if not lab.kube.kubectl("get", "deployment/orders", "-n", "bookshop", check=False).ok:
        reason = "the lab has no bookshop: stackbook run --only 14"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with lab_page.opened("shop", tmp_path_factory.mktemp("open") / "open.log") as address:
        yield address


def order(page: Page, name: str, picture: Path) -> None:
    """Place an order as a reader of the page does, and take a picture of it; fails unless the page shows the shop's answer."""
    operation = page.locator(".opblock-post", has_text="Place an order")
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    body = operation.locator("textarea.body-param__text")
    body.fill(json.dumps({"customer": name, "book": "macbeth", "quantity": 3}))
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    status = answer.locator(".response-col_status")
    assert status.inner_text().strip() == "201"
    assert '"total_cents": 2820' in answer.inner_text()
    body.evaluate(
        "body => { body.style.height = '60px'; body.scrollIntoView({block: 'start'}); window.scrollBy(0, -60); }"
    )
    lab_page.picture(page, picture, body, operation.locator(".execute"), operation.locator(".curl-command"), status)


def test_an_order_is_placed_in_swagger_ui(lab: Lab, shop: str, pictures: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/docs/", shop)
    name = f"browser-{secrets.token_hex(4)}"
    with lab_page.browser(tmp_path) as page:
        page.set_default_timeout(30_000)
        page.goto(shop)
        order(page, name, pictures / "shop-order.png")
    stored = deploy.query(lab.kube, f"SELECT book, quantity FROM orders.orders WHERE customer = '{name}'")
    assert stored == [["macbeth", "3"]]
    mails = f"SELECT COUNT(*) FROM mail.mails WHERE customer = '{name}'"
    until(lambda: deploy.query(lab.kube, mails) == [["1"]], what="the mail of the order", timeout=60, every=1)
