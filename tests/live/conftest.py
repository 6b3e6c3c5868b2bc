"""The live lab: taken as it is found, or built for the session and taken away again at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from stackbook import paths, reset
from stackbook.chapter import Lab
from stackbook.parameters import Profile

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command of stackbook did."""

    status: int
    output: str


def stackbook(*args: str, timeout: float = 1500, env: dict[str, str] | None = None) -> Done:
    """Run `stackbook …` as a user would, from the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "stackbook", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout + done.stderr)


def keep_evidence(text: str) -> None:
    """Put the cause and the newest run's record where CI looks for them."""
    folder = os.environ.get("STACKBOOK_DIAGNOSTICS")
    if folder:
        (Path(folder) / "cause.txt").write_text(text[-6000:], encoding="utf-8")
        latest = paths.runs() / "latest"
        if latest.exists():
            shutil.copytree(latest.resolve(), Path(folder) / "run", dirs_exist_ok=True)


@dataclass(frozen=True)
class Built:
    """How the session came by its lab: `first` is the run that built it, None when it was there."""

    lab: Lab
    first: Done | None


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    if os.geteuid():
        pytest.fail("the live tests need root: run them by `make test`, which asks sudo")
    was_there = (paths.state(Profile.load().lab) / "instance").exists()
    first = stackbook("run", "--to", "05")
    if first.status:
        keep_evidence(first.output)
        pytest.exit(f"the lab did not come up:\n{first.output[-6000:]}", returncode=1)
    yield Built(Lab.open("05-istio"), None if was_there else first)
    if not was_there:
        left = reset.reset(Profile.load(), say=lambda text: None)
        assert not left, [str(d) for d in left]


@pytest.fixture(scope="session")
def lab(built: Built) -> Lab:
    return built.lab


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed and "live" in item.keywords:
        keep_evidence(f"{item.nodeid}\n{report.longreprtext}")
