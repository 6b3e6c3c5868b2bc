"""However a run is ended from outside, its record and its report are written and nothing of it stays: in real processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stackbook.app import streams
from stackbook.core import temp_dirs
from stackbook.core.locks import born

RUN = """
import faulthandler, signal, sys
faulthandler.register(signal.SIGUSR2, file=open(sys.argv[1] + "/stacks", "w"), all_threads=True)
from pathlib import Path
from stackbook.config import chapters
from stackbook.app import cli
from stackbook.app import supervision as companions
from stackbook.core import paths
from stackbook.app import runner
from stackbook.config.chapters import Chapter

folder = Path(sys.argv[1])
paths.notebooks = lambda: folder
chapters.ALL = (Chapter("80-slow", "Takes its time"), Chapter("81-after", "Comes after"))
cli.become_root = lambda *_: None
real = companions.prefetching
runner.prefetching = lambda profile, names, where: real(profile, ["x"], where)

class System:
    executable = str(folder / "prefetch")

companions.sys = System
sys.exit(cli.main(["run"]))
"""
SLOW = """
import os, time
from pathlib import Path
from stackbook.lab.step import Record
from stackbook.lab.step import step
run = Path(os.environ["STACKBOOK_RUN"])
with step("wait", "it waits", chapter="80-slow", record=Record(run / "events.jsonl")):
    (run / "kernel").write_text(str(os.getpid()))
    time.sleep(600)
"""


def notebook(source: str) -> str:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{n}", "outputs": [], "source": text,
         "metadata": {"tags": ["parameters"] if n == 0 else []}}
        for n, text in enumerate(('profile = "embedded"', source))
    ]  # fmt: skip
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})


class Begun:
    """A run that is in the middle of its first chapter, in a terminal of its own."""

    def __init__(self, folder: Path, *, before: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        (folder / "80-slow.ipynb").write_text(notebook(SLOW), encoding="utf-8")
        (folder / "81-after.ipynb").write_text(notebook("1"), encoding="utf-8")
        prefetch = folder / "prefetch"
        prefetch.write_text(
            f"#!/bin/sh\necho $$ > {folder}/fetching.new\nmv {folder}/fetching.new {folder}/fetching\nsleep 600\n"
        )
        prefetch.chmod(0o755)
        (folder / "t").mkdir(mode=0o700)
        env = {**os.environ, "TMPDIR": str(folder / "t")}
        env |= {f"STACKBOOK_{name}": str(folder / name.lower()) for name in ("CACHE", "STATE", "RUNS")}
        env.pop("XDG_RUNTIME_DIR", None)
        self.terminal, theirs = pty.openpty()

        def begin() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may do so under nohup
            before()

        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=env,
            start_new_session=True, preexec_fn=begin,
        )  # fmt: skip
        os.close(theirs)
        self.latest = folder / "runs" / "latest"
        written = (self.latest / "kernel", folder / "fetching")  # each exists for a moment before its text is in it
        self.wait_for(lambda: all(file.is_file() and file.read_text().strip() for file in written))
        self.pids = [int((self.latest / "kernel").read_text()), int((folder / "fetching").read_text())]

    def wait_for(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not there():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def wait(self, seconds: float) -> int:
        """Its exit status; where it does not end, the failure says where each of its threads stands."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, signal.SIGUSR2)
            time.sleep(0.5)
            pytest.fail(f"the run has not ended after {seconds} s:\n{(self.folder / 'stacks').read_text()}")

    def said(self) -> str:
        with contextlib.suppress(OSError):
            os.set_blocking(self.terminal, False)
            return os.read(self.terminal, 65536).decode()
        return ""

    def close_terminal(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.terminal)


@pytest.fixture
def short() -> Iterator[Path]:
    with temp_dirs.folder("t", Path("/tmp")) as folder:
        yield folder


def end_by_terminal(run: Begun) -> None:
    run.close_terminal()
    os.kill(run.process.pid, signal.SIGHUP)  # and so does the shell


def end_by_term(run: Begun) -> None:
    os.kill(run.process.pid, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("end", [end_by_terminal, end_by_term])
def test_a_closed_terminal_and_sigterm_leave_record_and_report_and_no_child(
    short: Path, end: Callable[[Begun], None]
) -> None:
    run = Begun(short)
    try:
        end(run)
        assert run.wait(120) == 130, run.said()
    finally:
        run.process.kill()
        run.close_terminal()
    _ended_well(run)


@pytest.mark.slow
def test_under_nohup_a_run_outlives_its_terminal_and_printing_does_not_end_it(short: Path) -> None:
    run = Begun(short, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    try:
        run.close_terminal()
        os.kill(run.process.pid, signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1)
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.wait(120) == 130
    finally:
        run.process.kill()
        run.close_terminal()
    _ended_well(run)


def _ended_well(run: Begun) -> None:
    record = json.loads((run.latest / "run.json").read_text(encoding="utf-8"))
    assert [(c["chapter"], c["outcome"]) for c in record["chapters"]] == [("80-slow", "interrupted")]
    assert "80-slow" in (run.latest / "report.html").read_text(encoding="utf-8")
    assert [pid for pid in run.pids if born(pid)] == []
    assert [path.name for path in (run.folder / "t").glob("stackbook-*")] == []


class Gone(io.StringIO):
    """A stream whose other end is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE])
def test_printing_where_nobody_looks_raises_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone(number))
    monkeypatch.setattr(sys, "stderr", Gone(number))
    before = sys.stdout
    with streams.lasting():
        print("x", flush=True)
        print("y", file=sys.stderr)
    assert sys.stdout is before


def test_a_full_disk_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"), streams.lasting():
        print("x")


LOST = """
import os, signal, sys, time
from stackbook.app import cli

class Tidied:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass  # here the signal's handler runs

def work(_options):
    Tidied()
    time.sleep(30)
    return 0

cli._command = work
sys.exit(cli.main(["list"]))
"""


def test_a_signal_that_comes_while_an_object_is_tidied_up_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("stackbook: interrupted")


INSIDE_EXEC = """
import atexit, sys
from stackbook.app import cli, program

def interrupted(words):
    atexit.register(print, "what is left to do at exit")
    try:
        exec("raise KeyboardInterrupt")  # as dataclasses do at import, when Ctrl-C comes then
    except KeyboardInterrupt:
        return program.INTERRUPTED

cli._main = interrupted
print("begun", flush=True)
sys.exit(cli.entry() if sys.argv[1] == "entry" else cli.main([]))
"""


def test_an_interrupt_inside_exec_does_not_change_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INSIDE_EXEC)
    command = [sys.executable, "-m", "interrupted"]  # the sudo'ed command and the tests run `python -m stackbook`
    done = subprocess.run([*command, "entry"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130, done
    assert done.stdout.splitlines() == ["begun", "what is left to do at exit"]
    bare = subprocess.run([*command, "main"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert bare.returncode == -signal.SIGINT, "Python has changed: entry() need not end the process itself any more"
