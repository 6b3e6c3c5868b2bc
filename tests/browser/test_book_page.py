"""The book in a real browser, from a file: on a phone, and its search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import book_site
import lab_page
import pytest
from test_report_page import TOO_WIDE

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lab_page.demand_chromium()
    return book_site.site(tmp_path_factory.mktemp("book") / "site")


@pytest.fixture
def page(site: Path, tmp_path: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=lab_page.chromium(), args=lab_page.FLAGS
        )
        yield context.new_page()
        context.close()


@pytest.mark.parametrize(
    "name", ["README", "notebooks/02-kubeadm", "notebooks/06-traffic", "notebooks/13-delivery", "zh/notebooks/05-istio"]
)
def test_a_page_fits_a_phone(site: Path, page: Any, pictures: Path, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"file://{site / name}.html")
    page.screenshot(path=str(pictures / f"book-{name.replace('/', '-')}.png"))
    assert page.evaluate(TOO_WIDE) == []


def test_the_search_finds_a_word(site: Path, page: Any) -> None:
    page.goto(f"file://{site}/search.html?q=flannel")
    page.wait_for_selector("#search-results ul.search li a", timeout=20_000)
    found = page.locator("#search-results ul.search li a").all_inner_texts()
    assert any("03" in title for title in found), found
    page.goto(f"file://{site}/zh/search.html?q=容器")
    page.wait_for_selector("#search-results ul.search li a", timeout=20_000)
    assert page.locator("#search-results ul.search li a").count() >= 1
    page.goto(f"file://{site}/search.html?q=zzqqxxyy")
    page.wait_for_function("document.querySelector('.search-summary')?.innerText.length > 0", timeout=20_000)
    assert page.locator("#search-results ul.search li a").count() == 0
