"""Turns: one process at a time, whoever waits is next, and a process that has ended holds up nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stackbook.app import session
from stackbook.core.errors import WaitTimeout
from stackbook.core.locks import Lock
from stackbook.lab.lab import Lab
from stackbook.lab.turns import taken, turn

OTHER = """
import sys, time
from pathlib import Path
from stackbook.lab.turns import turn
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with turn(folder, "06-traffic, canary", timeout=10, **dict(zip(["of"], sys.argv[3:]))) as waited:
    print("has it", flush=True)
    time.sleep(seconds)
print(f"{waited:.3f}", flush=True)
"""


def other(folder: Path, seconds: float, *of: str) -> subprocess.Popen[str]:
    """Another process that wants the turn, and keeps it for so long."""
    argv = [sys.executable, "-c", OTHER, str(folder), str(seconds), *of]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@contextmanager
def held(folder: Path, seconds: float, *of: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the turn."""
    process = other(folder, seconds, *of)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "has it\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_nobody_is_waited_for_where_nobody_is(tmp_path: Path) -> None:
    with turn(tmp_path, "mine") as waited:
        assert waited < 0.1
        assert json.loads((tmp_path / "turn.lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "turn.lock").read_text() == ""


def test_another_is_waited_for_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    with held(tmp_path, 1) as process, turn(tmp_path, "mine", timeout=10, say=said.append) as waited:
        assert waited > 0.1
        assert process.wait(5) == 0
    named = f"waits for its turn: process {process.pid} has held it since "
    assert [text for text in said if named in text and "06-traffic, canary" in text], said


def test_it_is_said_whether_somebody_has_it(tmp_path: Path) -> None:
    assert not taken(tmp_path)
    with held(tmp_path, 20):
        assert taken(tmp_path) and not taken(tmp_path, of="Prometheus")
    assert not taken(tmp_path), "a process that was killed has it no more"


def test_an_open_challenge_is_named_unless_a_chapter_is_at_work_on_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chapter 16 keeps the turn while its incident is open; what another chapter prints meanwhile stays the same."""
    lab = session.opened("08-protobuf")
    (lab.state / "challenge.json").write_text('{"id": "16-a"}')
    lab.preconditions()
    assert "the challenge 16-a is open on this lab" in capsys.readouterr().out
    with held(lab.state, 20):
        lab.preconditions()
    assert "16-a" not in capsys.readouterr().out


def test_the_deadline_says_who_has_it_and_what_for(tmp_path: Path) -> None:
    with held(tmp_path, 30) as process, pytest.raises(WaitTimeout, match=rf"process {process.pid} .* 06-traffic, canary"), \
         turn(tmp_path, "mine", timeout=0.2):  # fmt: skip
        raise AssertionError("it was given")


def test_the_turn_of_something_else_is_another(tmp_path: Path) -> None:
    with held(tmp_path, 30, "Prometheus"):
        with turn(tmp_path, "mine") as waited:
            assert waited < 0.1
        with (
            pytest.raises(WaitTimeout, match="Prometheus to be free"),
            turn(tmp_path, "mine", of="Prometheus", timeout=0.2),
        ):
            raise AssertionError("it was given")


def test_a_process_that_was_killed_holds_up_nobody(tmp_path: Path) -> None:
    with held(tmp_path, 30) as process:
        process.kill()
        process.wait()
        assert "06-traffic, canary" in (tmp_path / "turn.lock").read_text()
        with turn(tmp_path, "x", timeout=5) as waited:
            assert waited < 1
            assert json.loads((tmp_path / "turn.lock").read_text())["who"] == "x"


def test_the_note_of_a_killed_holder_is_not_believed_of_a_process_that_has_its_number(tmp_path: Path) -> None:
    """The kernel gives numbers out again: this process stands for one that got the number of a holder that was killed."""
    with held(tmp_path, 30):
        note = {"pid": os.getpid(), "born": "1", "who": "somebody who was killed", "since": "10:00:00"}
        (tmp_path / "turn.lock").write_text(json.dumps(note))
        with pytest.raises(WaitTimeout), turn(tmp_path, "mine", timeout=0.3):
            raise AssertionError("it was given")


def test_two_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    inside: list[str] = []
    both = threading.Barrier(2)

    def work() -> None:
        both.wait()
        with turn(tmp_path, "mine", timeout=10):
            inside.append("in")
            time.sleep(0.2)
            inside.append("out")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert inside == ["in", "out", "in", "out"]


def test_within_a_turn_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with turn(tmp_path, "outer", timeout=1):
        with turn(tmp_path, "inner", timeout=1):
            pass
        child = other(tmp_path, 0)  # a process started by the one that has it
        out, _ = child.communicate(timeout=20)
        assert out.split("\n")[:2] == ["has it", "0.000"]
        assert json.loads((tmp_path / "turn.lock").read_text())["who"] == "outer"  # and it is still ours


GIVES_BACK = """
import sys, time
from pathlib import Path
from stackbook.core.locks import Lock
from stackbook.lab.turns import turn
folder = Path(sys.argv[1])
with turn(folder, "first", timeout=10):
    print("has it", flush=True)
    deadline = time.monotonic() + 60
    while Lock(folder / "turn.next").holder() is None and time.monotonic() < deadline:
        time.sleep(0.01)
with turn(folder, "again", timeout=60):
    print("has it again", flush=True)
"""


def test_whoever_waits_is_next(tmp_path: Path) -> None:
    """A process that gives its turn back and wants another at once, as a chapter from step to step, comes after those that wait."""
    process = subprocess.Popen([sys.executable, "-c", GIVES_BACK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        with turn(tmp_path, "mine", timeout=60):
            deadline = time.monotonic() + 60
            while (next_one := Lock(tmp_path / "turn.next").holder()) is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert next_one is not None and next_one["pid"] == process.pid, "it had its second turn before this one"
        assert process.communicate(timeout=60)[0] == "has it again\n"
    finally:
        process.kill()
        process.wait()


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), turn(tmp_path, "mine"):
        raise RuntimeError
    process = other(tmp_path, 0)
    assert process.communicate(timeout=20)[0].startswith("has it")


def test_each_step_of_a_chapter_that_has_the_bench_has_the_turn(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab.open("06-traffic")
    lab.state.mkdir(parents=True, exist_ok=True)

    def holder() -> str:
        path = lab.state / "turn.lock"
        return json.loads(path.read_text())["who"] if path.exists() and path.read_text() else ""

    with lab.step("canary", "a step"):
        assert holder() == ""
    with lab.by_turns():
        with held(lab.state, 0.4), lab.step("canary", "a step"):
            assert holder() == "06-traffic, canary"
        with lab.step("explain", "a step", alone=False):
            assert holder() == ""
    assert holder() == ""
    ends = [event for event in lab.record.events() if event["event"] == "step-end"]
    assert ends[1]["evidence"]["seconds_until_its_turn"] > 0.1 and ends[0]["evidence"] == {}
    assert capsys.readouterr().out == "✓ canary: a step\n" * 2 + "✓ explain: a step\n"


def test_what_runs_between_two_steps_is_recorded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `enter` makes and `leave` takes away are commands of the chapter, too; a scope without commands adds nothing."""
    lab = Lab.open("06-traffic")
    lab.state.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def scope() -> Iterator[None]:
        lab.local.run(["echo", "made"])
        try:
            yield
        finally:
            lab.local.run(["echo", "gone"])

    stack = lab.enter(scope())
    with lab.step("one", "a step"):
        inner = lab.enter(scope())
    lab.leave(inner)
    lab.leave(stack)
    lab.leave(lab.enter(lab.by_turns()))
    ends = [event for event in lab.record.events() if event["event"] == "step-end"]
    assert [(e["step"], e["outcome"], [c["command"] for c in e["commands"]]) for e in ends] == [
        ("enter", "passed", ["echo made"]),
        ("one", "passed", ["echo made"]),
        ("leave", "passed", ["echo gone"]),
        ("leave", "passed", ["echo gone"]),
    ]
    assert capsys.readouterr().out == "✓ one: a step\n" + "✓ what this chapter made is taken away\n" * 3
