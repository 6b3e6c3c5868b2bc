"""Who builds next: a waiter leaves as soon as its artifact is there, and a chapter comes before what is only fetched ahead."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stackbook.artifacts import build_queue
from stackbook.artifacts.build_queue import BuildQueue
from stackbook.artifacts.job_locks import JobLock
from stackbook.core import locks
from stackbook.core.errors import WaitTimeout
from stackbook.core.locks import Lock
from stackbook.core.progress import Progress, quiet

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_queue, "places", lambda _processors, _free: 1)


def nothing() -> None:
    return None


def builds(folder: Path, groups: list[str], seconds: float) -> subprocess.Popen[str]:
    """A process that fetches ahead: one group after the other, each leaves a file when it is built."""
    script = """
import sys, time
from pathlib import Path
from stackbook.artifacts import build_queue
from stackbook.core.progress import quiet
build_queue.places = lambda processors, free: 1
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
for group in sys.argv[3:]:
    with build_queue.BuildQueue(folder).turn(group, urgent=False, found=lambda: None, report=quiet, deadline=60):
        print("begins", group, flush=True)
        time.sleep(seconds)
        (folder / group).write_text(str(time.time()))
"""
    argv = [sys.executable, "-c", script, str(folder), str(seconds), *groups]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_waiter_goes_on_within_a_second_of_the_end_of_what_it_waits_for(tmp_path: Path) -> None:
    """What went wrong on an empty cache: the next build took the lock at once, and the waiter waited for all of them."""
    process = builds(tmp_path, ["kubernetes", "istio"], 1.5)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins kubernetes\n"

        def found() -> str:
            path = tmp_path / "kubernetes"
            return path.read_text() if path.exists() else ""

        with BuildQueue(tmp_path).turn("kubernetes", urgent=True, found=found, report=quiet, deadline=30) as job:
            assert isinstance(job.found, str)
            assert time.time() - float(job.found) < 1
        assert not (tmp_path / "istio").exists()
        assert process.stdout.readline() == "begins istio\n"
    finally:
        ended(process)


@pytest.mark.slow
def test_what_a_chapter_waits_for_is_built_before_what_is_only_fetched_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_queue, "free_memory", lambda: 0)  # no place more for it
    process = builds(tmp_path, ["istio", "gitea"], 1.0)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins istio\n"
        with BuildQueue(tmp_path).turn("apps", urgent=True, found=nothing, report=quiet, deadline=30):
            assert (tmp_path / "istio").exists()
            time.sleep(0.5)
            assert not (tmp_path / "gitea").exists()
        assert process.stdout.readline() == "begins gitea\n"
    finally:
        ended(process)


def test_a_chapter_builds_beside_what_is_fetched_ahead_where_memory_allows_it(tmp_path: Path) -> None:
    process = builds(tmp_path, ["istio"], 30)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins istio\n"
        start = time.monotonic()
        with BuildQueue(tmp_path).turn("apps", urgent=True, found=nothing, report=quiet, deadline=30) as job:
            assert job.found is None
            assert time.monotonic() - start < 15, "it has waited for the other build, which takes 30 s"
    finally:
        ended(process)


def test_a_fetcher_does_not_hold_up_the_chapter_that_waits_for_the_very_same(tmp_path: Path) -> None:
    """Both want one group: the mark of the chapter must not keep the fetcher from building it."""
    with Lock(tmp_path / "go-wanted-istio.lock").attempt(shared=True):
        with BuildQueue(tmp_path).turn("istio", urgent=False, found=nothing, report=quiet, deadline=5):
            pass
        with (
            pytest.raises(WaitTimeout),
            BuildQueue(tmp_path).turn("gitea", urgent=False, found=nothing, report=quiet, deadline=0.5),
        ):
            raise AssertionError("it came before the chapter")
    with BuildQueue(tmp_path).turn("gitea", urgent=False, found=nothing, report=quiet, deadline=5):
        pass


def test_web_pages_wait_for_a_chapters_programs_and_keep_nothing_waiting(tmp_path: Path) -> None:
    queue = BuildQueue(tmp_path)
    with (
        Lock(tmp_path / "go-wanted-istio.lock").attempt(shared=True),
        pytest.raises(WaitTimeout, match="the turn of gitea-pages to be built"),
        queue.turn("gitea-pages", urgent=False, found=nothing, report=quiet, deadline=0.5),
    ):
        raise AssertionError("they came before the chapter's program")
    with queue.turn("gitea-pages", urgent=True, found=nothing, report=quiet, deadline=5) as job:
        assert JobLock(tmp_path, "gitea-pages").holder()
        job(Progress("gitea-pages", "download", 5, 9, "packages"))
        seen: list[Progress] = []
        with pytest.raises(WaitTimeout), queue.turn(
            "istio", urgent=False, found=nothing, report=seen.append, deadline=0.5
        ):  # fmt: skip
            raise AssertionError("one builds at a time")
        assert "gitea-pages: downloading" in seen[-1].line()
    with queue.turn("gitea-pages", urgent=False, found=nothing, report=quiet, deadline=5):
        pass


def test_a_killed_builder_is_taken_over_from(tmp_path: Path) -> None:
    process = builds(tmp_path, ["istio"], 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins istio\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with BuildQueue(tmp_path).turn("istio", urgent=False, found=nothing, report=quiet, deadline=10):
        pass


def test_the_deadline_says_what_is_built_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_queue, "free_memory", lambda: 0)
    queue = BuildQueue(tmp_path)
    with queue.turn("istio", urgent=False, found=nothing, report=quiet, deadline=5) as job:
        job(Progress("go:istio", "build", 3, 10, "packages", seconds=1, remaining=7))
        with (
            pytest.raises(
                WaitTimeout,
                match=r"go:apps.*istio \(Go build\): building, 3 of 10 packages, 1 s, about 7 s more, by process",
            ),
            queue.turn("apps", urgent=True, found=nothing, report=quiet, deadline=0.4),
        ):
            raise AssertionError("it was given")


def test_nobody_builds_while_the_cache_is_trimmed(tmp_path: Path) -> None:
    queue = BuildQueue(tmp_path)
    with queue.no_build(deadline=5), pytest.raises(WaitTimeout), \
         queue.turn("istio", urgent=True, found=nothing, report=quiet, deadline=0.4):  # fmt: skip
        raise AssertionError("it was given")
    with queue.turn("istio", urgent=True, found=nothing, report=quiet, deadline=5), pytest.raises(WaitTimeout), \
         queue.no_build(deadline=0.3):  # fmt: skip
        raise AssertionError("it was given")


def test_a_waiter_for_a_download_leaves_as_soon_as_it_is_there(tmp_path: Path) -> None:
    there: list[str] = []
    lock = JobLock(tmp_path, "envoy")
    with lock.job("envoy", report=quiet, deadline=5), pytest.raises(WaitTimeout), \
         lock.job("envoy", report=quiet, deadline=0.3, found=lambda: there):  # fmt: skip
        raise AssertionError("it was given")
    there.append("envoy")
    with (
        lock.job("envoy", report=quiet, deadline=5),
        lock.job("envoy", report=quiet, deadline=5, found=lambda: there) as job,
    ):
        assert job.found == ["envoy"]


def test_a_shared_lock_keeps_out_who_wants_it_alone_and_can_become_one(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "users.lock")
    with lock.attempt(shared=True) as first:
        assert first is not None
        assert first.alone()
        first.share()
        with lock.attempt(shared=True) as second:
            assert second is not None
            assert not first.alone()
        with lock.attempt() as third:
            assert third is None
        assert first.alone()


def test_a_note_is_believed_while_its_very_process_lives(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "x.lock")
    with lock.attempt(who="me") as held:
        assert held is not None
        assert (lock.holder() or {})["who"] == "me"
        lock.path.write_text(json.dumps({"pid": os.getpid(), "born": "1", "who": "me"}))
        assert lock.holder() is None
        lock.path.write_text("[")
        assert lock.holder() is None
    assert lock.holder() is None
    assert locks.born(os.getpid()) and not locks.born(2**30)
    assert {os.getpid(), os.getppid()} <= locks.ancestors()
