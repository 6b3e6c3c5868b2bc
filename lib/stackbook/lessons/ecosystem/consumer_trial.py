"""A consumer program of a learner, tried on the lab's Kafka: does it keep up, and does it handle each message once?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.core import temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import pause
from stackbook.lessons.ecosystem import broker, groups, topics
from stackbook.lessons.ecosystem.topics import Topic, Writer

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

GROUP = "learner"
EARLY, RATE, SECONDS, LATER = 100, 200.0, 4.0, 50
"""How many messages there are before the consumer's first start; how many come in a second, for how long; how many while it is away."""
_START, _CATCH_UP = 8.0, 5.0


@dataclass(frozen=True)
class Trial:
    """What a consumer did.

    Attributes:
        written: the values of all messages.
        handled: the lines that it printed, in order.
        lag: its greatest lag in the last seconds of the load.
        behind: its lag in the end.
    """

    written: tuple[str, ...]
    handled: tuple[str, ...]
    lag: int
    behind: int


def run(lab: Lab, program: Path) -> Trial:
    """Start the program twice: under load, and after more messages came while it was stopped.

    Raises:
        CheckFailed: there is no Kafka, or the program ends by itself or does not stop; the message has its last line.
    """
    with (
        lab.turn("a consumer on trial", of=broker.TURN),
        broker.reached(lab) as bootstrap,
        topics.temporary(bootstrap, partitions=2, name="trial") as topic,
        temp_dirs.folder("consumer") as folder,
    ):
        topic.write(groups.orders(EARLY))
        with _running(program, topic, folder / "first") as first:
            _wait(lambda: bool(first.lines()), first, _START)
            lag = _load(topic)
            _wait(lambda: _behind(topic) == 0, first, _CATCH_UP)
        total = EARLY + int(RATE * SECONDS)
        topic.write(groups.orders(LATER, first=total))
        with _running(program, topic, folder / "second") as second:
            _wait(lambda: _behind(topic) == 0, second, _START)
        written = tuple(value for _, value in groups.orders(total + LATER))
        return Trial(written, (*first.lines(), *second.lines()), lag, _behind(topic))


def _load(topic: Topic) -> int:
    """Write at a constant rate; returns the group's greatest lag in the second half of that time."""
    writer, start, most, sampled = Writer(topic), time.monotonic(), 0, 0.0
    for number, (key, value) in enumerate(groups.orders(int(RATE * SECONDS), first=EARLY)):
        writer.send(key, value)
        writer.look(max(0.0, start + number / RATE - time.monotonic()))
        seconds = time.monotonic() - start
        if seconds > SECONDS / 2 and seconds - sampled > 0.3:
            sampled = seconds
            most = max(most, _behind(topic))
    writer.finish()
    return max(most, _behind(topic))


def _behind(topic: Topic) -> int:
    return sum(topic.lag(GROUP).values())


@dataclass(frozen=True)
class _Program:
    process: subprocess.Popen[bytes]
    output: Path

    def lines(self) -> list[str]:
        return self.output.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]

    def problem(self) -> str:
        said = self.output.with_suffix(".err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return (said or ["it printed no error"])[-1][:200]


@contextmanager
def _running(program: Path, topic: Topic, output: Path) -> Iterator[_Program]:
    """The program while the block runs; then SIGTERM, after which it has to end by itself."""
    env = {**os.environ, "KAFKA": topic.bootstrap, "TOPIC": topic.name, "GROUP": topic.group(GROUP)}
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env
        )
    found = _Program(process, output)
    try:
        yield found
        if process.poll() is not None:
            raise CheckFailed(f"{program.name} ended by itself with status {process.returncode}: {found.problem()}")
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{program.name} did not end within 5 s of SIGTERM") from None
        if process.returncode not in (0, -signal.SIGTERM):
            raise CheckFailed(f"{program.name} failed when it ended: {found.problem()}")
    finally:
        end(process, steps=())


def _wait(done: Callable[[], bool], program: _Program, seconds: float) -> None:
    """Wait for a condition, not longer than some seconds: what it is worth, the claims decide; a program that ended ends it."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline and program.process.poll() is None:
        pause(0.2)
