"""A class of four small labs on this host: side by side, within the memory that is forecast, each with its JupyterLab, and gone again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from labtools import ROOT, left_on_this_host, stackbook
from stackbook.app import preflight, reset
from stackbook.app.classroom import labs
from stackbook.config import chapters
from stackbook.config.profile import Profile
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts
from stackbook.machines.transports import LocalHost

pytestmark = [pytest.mark.live, pytest.mark.more]
COUNT = 4


def free() -> float:
    return facts.MEMORY.read(LocalHost())["MemAvailable"]


@pytest.fixture(scope="module")
def taken() -> Iterator[float]:
    """The class is up, and this is what it takes of the memory in bytes; this host is as it was afterwards."""
    assert labs.seats() == [], "there is a class already: these tests would take it away"
    before, had = reset.snapshot(), free()
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    allowed = limit.read_text()
    try:
        if int(allowed) - preflight.inotify_in_use() < COUNT * preflight.inotify_needed(2):
            refused = stackbook("class", "up", str(COUNT), "--to", "03")
            assert refused.status == 2, refused.output
            (fix,) = re.findall(r"sysctl -w fs.inotify.max_user_instances=(\d+)", refused.output)
            assert labs.seats() == [], "nothing is made before it is refused"
            limit.write_text(fix)  # what the message tells the trainer to do
        done = stackbook("class", "up", str(COUNT), "--to", "03")
        assert done.status == 0, done.output[-4000:]
        time.sleep(5)
        yield had - free()
    finally:
        profiles = [Profile.load(seat.file) for seat in labs.seats()]
        gone = stackbook("class", "down")
        limit.write_text(allowed)
    assert gone.status == 0, gone.output[-3000:]
    assert labs.seats() == [] and not list(labs.folder().glob("class-*"))
    left = {profile.lab: left_on_this_host(profile, before) for profile in profiles}
    assert left == {profile.lab: [] for profile in profiles} and len(left) == COUNT


def test_every_lab_is_a_cluster_of_its_own(taken: float) -> None:
    seen = []
    for seat in labs.seats():
        lab = Lab.open("03-flannel", seat.file)
        lab.kube.wait_nodes([node.name for node in lab.profile.nodes], timeout=30)
        seen.append({node["metadata"]["uid"] for node in lab.kube.nodes()})
    assert [len(uids) for uids in seen] == [2] * COUNT
    assert len(set().union(*seen)) == 2 * COUNT


def test_they_take_no_more_than_was_forecast(taken: float) -> None:
    forecast = labs.needed(COUNT, nodes=2, last=chapters.find("03"))
    print(
        f"{COUNT} labs of two machines through 03: {taken / preflight.GIB:.2f} GiB, forecast {forecast / preflight.GIB:.2f}"
    )
    assert 0.2 * forecast < taken <= forecast
    assert taken / COUNT <= 1.2 * preflight.GIB


def test_each_learner_has_a_jupyterlab_of_their_own(taken: float) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "class", "serve"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for seat in labs.seats():
            until(lambda port=seat.port: answers(port) == 200, what=f"the JupyterLab of {seat.name} to answer", timeout=60,  # type: ignore[misc]
                  last=lambda port=seat.port: str(answers(port)))  # type: ignore[misc]  # fmt: skip
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    assert all(answers(seat.port) == 0 for seat in labs.seats())


def answers(port: int) -> int:
    """The status of JupyterLab's first page, or 0."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=5) as answer:
            return int(answer.status)
    except (urllib.error.URLError, OSError):
        return 0


def test_a_night_makes_a_lab_as_new(taken: float) -> None:
    """One lab's night; the others' would be the same, and as long."""
    seat = labs.seats()[0]
    others = [other.file for other in labs.seats()[1:]]
    kept = {file: file.read_text() for file in others}
    before = {node["metadata"]["uid"] for node in Lab.open("03-flannel", seat.file).kube.nodes()}
    for file in others:
        file.rename(file.with_suffix(".kept"))
    try:
        done = stackbook("class", "reset", "--nightly")
        assert done.status == 0, done.output[-3000:]
    finally:
        for file in others:
            file.with_suffix(".kept").rename(file)
    assert {file: file.read_text() for file in others} == kept
    after = {node["metadata"]["uid"] for node in Lab.open("03-flannel", seat.file).kube.nodes()}
    assert len(after) == 2 and not before & after
    pages = sorted((labs.folder() / "nightly").glob("*.html"))
    assert "1 of 1 labs were rebuilt" in pages[-1].read_text()
