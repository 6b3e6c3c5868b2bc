"""A kernel that is started ahead: it becomes the next kernel, and is never left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackbook.app import kernels_ahead
from stackbook.app.kernels_ahead import AHEAD, Ahead, ahead, modules
from stackbook.core import paths
from stackbook.core.waiting import until
from test_kernels import executed

NOTEBOOK = paths.checkout() / "notebooks/02-kubeadm.ipynb"
LAUNCH = [sys.executable, "-m", "ipykernel_launcher", "-f", "kernel.json"]


@pytest.fixture
def prepared() -> Iterator[Ahead]:
    found = Ahead()
    found.wanted = NOTEBOOK
    found.prepare()
    yield found
    found.close()


def process_of(one: Ahead) -> subprocess.Popen[bytes]:
    assert one._process is not None
    return one._process


@pytest.mark.slow
def test_the_second_kernel_of_a_run_is_the_one_that_was_started_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (
        "import os, sys, matplotlib; print(os.getpid(), os.getcwd(), os.environ['FOR_WHOM'], 'pandas' in sys.modules, "
        "matplotlib.get_backend(), sys.path[0] == '', end='')"
    )
    with ahead() as one:
        one.wanted = NOTEBOOK
        monkeypatch.setenv("FOR_WHOM", "the first")
        first = asyncio.run(executed(source, [])).split(" ")
        waiting = process_of(one).pid
        one.wanted = None
        monkeypatch.setenv("FOR_WHOM", "the-second")
        second = asyncio.run(executed(source, [])).split(" ")
    assert first[0] != str(waiting) and first[-3] == "False"
    assert second == [str(waiting), str(tmp_path), "the-second", "True", first[-2], first[-1]]
    assert "inline" in second[-2]
    assert AHEAD._process is None, "no third one was started"


@pytest.mark.slow
def test_it_ends_by_itself_when_its_run_is_gone(prepared: Ahead) -> None:
    process = process_of(prepared)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_it_is_ended_with_the_run() -> None:
    with ahead() as one:
        one.wanted = NOTEBOOK
        one.prepare()
        process = process_of(one)
    assert process.poll() is not None and one._process is None and one.wanted is None


def test_none_is_started_for_the_last_chapter() -> None:
    one = Ahead()
    one.prepare()
    assert one._process is None and one.take(LAUNCH, "/", {}) is None


@pytest.mark.parametrize("cmd", [["/bin/true", "-m", "ipykernel_launcher"], [sys.executable, "-m", "another_kernel"]])
def test_it_becomes_no_other_kernel(prepared: Ahead, cmd: list[str]) -> None:
    process = process_of(prepared)
    assert prepared.take(cmd, "/", {}) is None
    assert process.poll() is not None, "it does not wait for ever"


def test_one_that_has_ended_is_not_taken(prepared: Ahead) -> None:
    process = process_of(prepared)
    process.kill()
    process.wait(10)
    assert prepared.take(LAUNCH, "/", {}) is None


def test_the_command_and_its_place_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Ahead()
    one.wanted = NOTEBOOK
    monkeypatch.setattr(kernels_ahead.sys, "executable", "/bin/cat")
    real = subprocess.Popen
    monkeypatch.setattr(
        kernels_ahead.subprocess, "Popen", lambda argv, **how: real(["cat"], stdout=subprocess.PIPE, **how)
    )
    one.prepare()
    process = one.take(["/bin/cat", *LAUNCH[1:]], "/work", {"LANG": "C"})
    assert process is not None and process.stdout is not None
    with process.stdout as said:
        told = json.loads(said.read())
    process.wait(10)
    assert told == {
        "arguments": ["-f", "kernel.json"],
        "cwd": "/work",
        "env": {"LANG": "C", "JPY_PARENT_PID": str(os.getpid())},
    }


@pytest.mark.slow
def test_what_a_chapter_left_to_its_exit_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the interpreter is not taken apart."""
    monkeypatch.chdir(tmp_path)
    source = "import atexit, os, pathlib; atexit.register(pathlib.Path('left').write_text, str(os.getpid()))"
    with ahead() as one:
        one.wanted = NOTEBOOK
        one.prepare()
        one.wanted, waiting = None, process_of(one).pid
        asyncio.run(executed(source, [], now=False))
    assert (tmp_path / "left").read_text() == str(waiting)


_RUN = """
import asyncio, subprocess, time
from pathlib import Path
from stackbook.app.ipc_kernel import LocalKernelManager
from stackbook.app.kernels_ahead import AHEAD

async def main():
    AHEAD.wanted = Path("none.ipynb")
    AHEAD.prepare()
    AHEAD.wanted, waiting = None, AHEAD._process.pid
    manager = LocalKernelManager(kernel_name="python3")
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    print(waiting, manager.provisioner.pid, flush=True)
    time.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
def test_it_ends_with_a_run_that_is_killed_and_says_nothing_on_its_terminal() -> None:
    run = subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout as said:
        first = said.readline().split()
        waiting, kernel = (int(word) for word in first)
        assert waiting == kernel
        run.kill()
        run.wait(10)
        until(lambda: not Path(f"/proc/{kernel}").exists(), what="the kernel to end", timeout=20, every=0.1)


def test_the_imports_of_a_chapter_are_found() -> None:
    found = modules(NOTEBOOK)
    assert found[:2] == ["stackbook", "stackbook.bind"] and "stackbook.lessons.kubeadm.installing" in found


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cells": [{"cell_type": "code", "source": ["import"]}]}', '{"cells": [1]}']
)
def test_a_notebook_that_cannot_be_read_is_left_to_its_execution(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.ipynb").write_text(text, encoding="utf-8")
    assert modules(tmp_path / "broken.ipynb") == modules(tmp_path / "none.ipynb") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give up processor time and take it back")
def test_it_takes_idle_time_until_it_is_needed(prepared: Ahead) -> None:
    pid = process_of(prepared).pid

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(each.name)) for each in Path(f"/proc/{pid}/task").iterdir()}

    assert policies() == {os.SCHED_IDLE}
    until(lambda: len(list(Path(f"/proc/{pid}/task").iterdir())) > 1, what="a second thread", timeout=30, every=0.1)
    process = prepared.take(LAUNCH, "/", dict(os.environ))
    assert process is not None and policies() == {os.SCHED_OTHER}
    process.kill()
    process.wait(10)
