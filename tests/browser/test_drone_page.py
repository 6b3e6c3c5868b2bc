"""Drone in a real browser: its user signs in through Gitea, and sees the log of a step; with a wrong password, nobody does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lab_page
import pytest
from playwright.sync_api import Page, expect
from stackbook.artifacts.resolver import Resolver
from stackbook.lessons.delivery import drone, drone_builds, drone_shop, gitea
from stackbook.lessons.delivery.drone_builds import Build
from stackbook.lessons.delivery.drone_shop import Shop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not drone.accepted(), reason=f"Drone's licence is not accepted: {drone.VARIABLE}=true"),
]


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    lab_page.demand_chromium()
    resolver = Resolver.open()
    parts = replace(gitea.Parts.of(resolver), pages=resolver.path("gitea-pages"))
    with drone_shop.running(resolver, parts) as running:
        yield running


@pytest.fixture(scope="module")
def build(shop: Shop) -> Build:
    made = shop.project.wait(commit=shop.push())
    drone_builds.demand_success([made])
    return made


def sign_in(page: Page, shop: Shop, password: str) -> None:
    """From Drone's page to Gitea's, and with the password back; fails where the browser does not arrive."""
    page.goto(f"{shop.drone.url}/login")
    expect(page).to_have_url(re.compile(re.escape(f"{shop.gitea.url}/user/login")))
    page.fill("#user_name", gitea.USER)
    page.fill("#password", password)
    page.click("form button.primary.button")
    expect(page).to_have_url(re.compile(re.escape(shop.drone.url)), timeout=15_000)


def test_its_user_signs_in_through_gitea_and_sees_the_log_of_a_step(
    shop: Shop, build: Build, pictures: Path, tmp_path: Path
) -> None:
    with lab_page.browser(tmp_path) as page:
        sign_in(page, shop, shop.gitea.password.reveal())
        expect(page.get_by_text(shop.repository.path).first).to_be_visible(timeout=15_000)
        page.screenshot(path=str(pictures / "drone-repositories.png"))
        step = list(build.steps).index("docker") + 1
        page.goto(f"{shop.drone.url}/{shop.repository.path}/{build.number}/1/{step}")
        expect(page.get_by_text("log in as ******** with ********").first).to_be_visible(timeout=15_000)
        for name in build.steps:
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        marks = ("pushed", "restore-cache", "log in as ******** with ********")
        lab_page.picture(page, pictures / "drone-log.png", *(page.get_by_text(mark) for mark in marks))
        assert shop.password.reveal() not in page.content()
        page.goto(f"{shop.gitea.url}/{shop.repository.path}/commits/branch/main")
        status = page.locator("svg.commit-status").first
        expect(status).to_have_class(re.compile("green"), timeout=15_000)
        lab_page.picture(page, pictures / "gitea-commit.png", page.locator("td.message .message-wrapper"), status)


@pytest.mark.more
def test_with_a_wrong_password_nobody_is_signed_in(shop: Shop, build: Build, tmp_path: Path) -> None:
    with lab_page.browser(tmp_path) as page:
        with pytest.raises(AssertionError, match="Page URL expected to be"):
            sign_in(page, shop, "not the password")
        assert page.url.startswith(shop.gitea.url)
        page.goto(f"{shop.drone.url}/{shop.repository.path}/{build.number}/1/1")
        page.wait_for_load_state("networkidle")
        assert "git fetch" not in page.content(), "the log of a private repository is for its user alone"
