"""The same work on several machines at once; the record reads as if they had followed each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from fakes import FakeHost
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result
from stackbook.machines.each import on_each
from stackbook.machines.transports import Host, LocalHost


@dataclass
class _Heard:
    commands: list[str] = field(default_factory=list)

    def __call__(self, result: Result) -> None:
        self.commands.append(f"{result.host}: {result.command}")


def machines(heard: _Heard) -> dict[str, Host]:
    return {name: LocalHost(name=name, observers=[heard]) for name in ("first", "second", "third")}


def test_they_work_at_the_same_time_and_are_recorded_one_after_another() -> None:
    heard, together = _Heard(), threading.Barrier(3, timeout=20)

    def work(name: str, host: Host) -> str:
        host.run(["true"])
        together.wait()  # passes only if all three are here
        return host.run(["echo", name]).stdout.strip()

    hosts = machines(heard)
    assert on_each(hosts, work) == {"first": "first", "second": "second", "third": "third"}
    assert heard.commands == [f"{name}: {command}" for name in hosts for command in ("true", f"echo {name}")]
    hosts["first"].run(["true"])
    assert heard.commands[-1] == "first: true", "whoever observed a machine does so again"


def test_the_first_error_is_raised_when_all_have_finished() -> None:
    heard = _Heard()

    def work(name: str, host: Host) -> None:
        host.run(["echo", name])
        if name != "first":
            raise CheckFailed(f"{name} is broken")

    with pytest.raises(CheckFailed, match="second is broken"):
        on_each(machines(heard), work)
    assert heard.commands == ["first: echo first", "second: echo second", "third: echo third"]


def test_more_machines_than_work_at_once() -> None:
    hosts: dict[str, Host] = {str(number): FakeHost({"true": ""}) for number in range(9)}
    assert on_each(hosts, lambda name, host: host.run(["true"]).rc) == dict.fromkeys(hosts, 0)
