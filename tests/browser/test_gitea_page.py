"""The lab's Gitea in a real browser: with its styles and scripts, and without them, which must be noticed; and a run of its Actions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import lab_page
import pytest
from playwright.sync_api import Page, expect
from stackbook.artifacts.resolver import Resolver
from stackbook.core.redact import Secret
from stackbook.lessons.delivery import actions, gitea, npm, repository

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    lab_page.demand_chromium()
    return Resolver.open()


@pytest.fixture(scope="module")
def parts(resolver: Resolver) -> gitea.Parts:
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


@pytest.mark.more
def test_a_gitea_without_its_pages_is_noticed(parts: gitea.Parts, tmp_path: Path) -> None:
    with (
        gitea.running(replace(parts, pages=None)) as server,
        lab_page.browser(tmp_path) as page,
        pytest.raises(AssertionError, match="/assets/"),
    ):
        sign_in(page, server)


def test_the_page_of_a_run_shows_where_it_stopped(
    resolver: Resolver, parts: gitea.Parts, pictures: Path, tmp_path: Path
) -> None:
    """The second push of chapter 13: somebody has exchanged a package, and its checksum is another one."""
    password = Secret("hunter22xhunter22x")
    with gitea.running(parts) as server, npm.sandbox(resolver) as tool:
        tool.run("npm install --save-prod ./demo-cli-1.0.0.tgz")
        files: dict[str, str | bytes] = {
            name: (tool.project / name).read_bytes()
            for name in ("package.json", "package-lock.json", "demo-cli-1.0.0.tgz")
        }
        exchanged = re.sub(rb"sha512-.{8}", b"sha512-AAAAAAAA", (tool.project / "package-lock.json").read_bytes())
        shop = repository.Repository.create(server, "shop")
        for name, value in (("DOCKER_USER", Secret("team")), ("DOCKER_PASS", password)):
            actions.secret(shop, name, value)
        with actions.running(server, resolver.path("gitea-runner"), tool.environment) as runner:
            files |= {actions.WORKFLOW: actions.workflow(), "package-lock.json": exchanged}
            run = actions.wait(shop, shop.push(server.folder / "work", files, "an exchanged package"), runner)
        assert run.conclusion == "failure"
        with lab_page.browser(tmp_path) as page:
            sign_in(page, server)
            page.goto(f"{server.url}/{shop.path}/actions/runs/1/jobs/0")
            stopped, skipped = (
                page.locator(".job-step-summary", has_text=name) for name in ("npm-install", "build-dist")
            )
            expect(stopped).to_be_visible(timeout=15_000)
            stopped.click()
            reason = page.locator(".job-log-line", has_text="EINTEGRITY").first
            expect(reason).to_be_visible(timeout=15_000)
            title = page.locator(".action-info-summary-title")
            lab_page.picture(page, pictures / "actions-run.png", title, stopped, reason, skipped)
            assert password.reveal() not in page.content()
