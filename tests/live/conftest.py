"""The live lab: taken as it is found, or built for the session and taken away again at its end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import strangers
from labtools import Built, Done, keep_evidence, stackbook
from stackbook.app import reset
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.lab.lab import Lab
from stackbook.machines.transports import LocalHost
from stackbook.observability import tracing
from stackbook.traffic import sharing
from stackbook.traffic.testbed import Testbed


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    if os.geteuid():
        pytest.fail("the live tests need root: run them by `make test`, which asks sudo")
    log = os.environ.get("STACKBOOK_FIRST_RUN", "")  # tools/test.sh has built the lab, and takes it away again
    if log:
        was_there = os.environ["STACKBOOK_LAB_WAS_THERE"] == "1"
        first = Done(int(Path(f"{log}.status").read_text()), Path(log).read_text())
    else:
        was_there = (paths.state(Profile.load().lab) / "instance").exists()
        strangers.plant(LocalHost())
        first = stackbook("run", "--to", "05")
    if first.status:
        keep_evidence(first.output)
        pytest.exit(f"the lab did not come up:\n{first.output[-6000:]}", returncode=1)
    yield Built(Lab.open("05-istio"), None if was_there else first)
    if not was_there and not log:
        left = reset.reset(Profile.load(), say=lambda text: None)
        assert not left, [str(d) for d in left]
    if not log:
        gone = strangers.missing(LocalHost())
        strangers.remove(LocalHost())
        assert gone == []


@pytest.fixture(scope="session")
def lab(built: Built) -> Lab:
    return built.lab


@pytest.fixture(scope="session")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where outputs and logs of the tests are kept, to be searched for secrets at their end: where tools/test.sh has its logs."""
    logs = os.environ.get("STACKBOOK_TEST_LOGS")
    folder = Path(logs) / "outputs" if logs else tmp_path_factory.getbasetemp() / "outputs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def untraced(lab: Lab) -> Iterator[None]:
    """No request is traced while a module's tests send thousands of them: where chapter 11 was, it has all of them traced."""
    with tracing.untraced(lab.kube):
        yield


@pytest.fixture(scope="session")
def standing_bench(lab: Lab) -> Iterator[None]:
    """The test bed's two pods, from the first request to the end: whatever sets up the test bed finds and leaves it."""
    with sharing.restored(lab):
        with lab.turn("the test bed of the tests"):
            Testbed.prepare(lab)
        yield


@pytest.fixture(scope="module")
def one_bench(lab: Lab, standing_bench: None) -> Iterator[Testbed]:
    """The test bed for all tests of a module; afterwards, the earlier traffic rules are restored."""
    with sharing.restored(lab):
        with lab.turn("the test bed of the tests"):
            table = Testbed.prepare(lab)
        yield table


@pytest.fixture
def alone(lab: Lab) -> Iterator[None]:
    """The lab's turn for a whole test: what the other lane's chapter does with bookinfo waits until it is over."""
    with lab.turn("a test"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    if report.failed and "live" in item.keywords:
        crash = getattr(report.longrepr, "reprcrash", None)
        lab = getattr(item, "funcargs", {}).get("lab")
        keep_evidence(
            f"{item.nodeid}\n{report.longreprtext}",
            cause=f"{item.nodeid}: {(crash.message if crash else report.longreprtext)[-2500:]}",
            kube=lab.kube if isinstance(lab, Lab) else None,
        )
