"""The lab's Gitea in a real browser: with its styles and scripts, and without them, which must be noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lab_page
import pytest
from playwright.sync_api import Page
from stackbook.artifacts.resolver import Resolver
from stackbook.lessons.delivery import gitea

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
