"""Trials undo what they did wherever they are stopped, and what a killed one left does not stop the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.app import kernel_probes
from stackbook.config.profile import Profile
from stackbook.core.errors import CommandFailed
from stackbook.lessons.kubeadm import control_plane
from stackbook.lessons.machines import addressing, guide_commands
from stackbook.machines import facts
from stackbook.machines.transports import Result

MAKES = {"useradd": "user", "groupadd": "group", "systemd-run": "unit"}
REMOVES = {"userdel": "user", "groupdel": "group"}


class Machine:
    """A machine with names that can be made once, and removed; stopped after some number of commands."""

    def __init__(self, *there: str, stop_after: int = 1000) -> None:
        self.there, self.left, self.ran = set(there), stop_after, 0

    def run(self, argv, *, check=True, **_: Any) -> Result:
        self.ran += 1
        self.left -= 1
        rc = self._change([str(word) for word in argv])
        if self.left == 0:  # the command was done, and then came Ctrl-C
            raise KeyboardInterrupt
        result = Result(tuple(argv), rc, "sbdocker", "", 0.0)
        if check and rc:
            raise CommandFailed(result)
        return result

    def write(self, path: str, *_: Any, **__: Any) -> None:
        self.there.add(path)

    def _make(self, name: str) -> int:
        if name in self.there:
            return 9
        self.there.add(name)
        return 0

    def _remove(self, name: str) -> int:
        if name not in self.there:
            return 6
        self.there.discard(name)
        return 0

    def _change(self, argv: list[str]) -> int:
        if argv[0] in MAKES:
            return self._make(MAKES[argv[0]])
        if argv[0] in REMOVES:
            return self._remove(REMOVES[argv[0]])
        if argv[:2] == ["systemctl", "stop"]:
            return self._remove("unit")
        if argv[0] == "rm":
            self.there.discard(argv[-1])
        if argv[:3] == [*facts.IPTABLES]:
            return self._filter(argv[3])
        if argv[:3] in (["ip", "netns", "add"], ["ip", "netns", "delete"]):
            return self._make("space") if argv[2] == "add" else self._remove("space")
        return 0

    def _filter(self, option: str) -> int:
        if option in ("-N", "-I"):
            return self._make({"-N": "chain", "-I": "jump"}[option])
        if option == "-D":
            return self._remove("jump")
        if option == "-X":
            return 1 if "jump" in self.there else self._remove("chain")
        return 0


def firewall(host: Machine) -> None:
    control_plane.firewall_trial(SimpleNamespace(control_plane=host, profile=Profile(), workers={}, local=host))


def unit(host: Machine) -> None:
    guide_commands.processes_in_a_unit(host)


def namespace(host: Machine) -> None:
    list(kernel_probes.kernel(host))


TRIALS: dict[Callable[[Machine], Any], set[str]] = {
    firewall: {"chain", "jump"},
    guide_commands.newgrp: {"user", "group"},
    guide_commands.fstab: set(),
    unit: {"unit"},
    namespace: set(),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        addressing, "open_ports", lambda host, _, ports: host.run(["nc"]) and dict.fromkeys(ports, True)
    )
    monkeypatch.setattr(guide_commands, "until", lambda *_, **__: 3)
    monkeypatch.setattr(kernel_probes, "_overlay", lambda _: None)
    monkeypatch.setattr(kernel_probes.facts, "CGROUP", SimpleNamespace(read=lambda _: "cgroup2fs"))


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.__name__)
def test_a_trial_that_is_stopped_anywhere_leaves_nothing(trial: Callable[[Machine], Any]) -> None:
    whole = Machine()
    trial(whole)
    assert whole.there == set() and whole.ran > 1
    for step in range(1, whole.ran + 1):
        host = Machine(stop_after=step)
        with suppress(KeyboardInterrupt):
            trial(host)
        cleaning = step > whole.ran - 3  # stopped while it cleaned up: for the next one
        assert host.there == set() or cleaning, f"stopped after command {step}"


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.__name__)
def test_what_a_killed_trial_left_does_not_stop_the_next(trial: Callable[[Machine], Any]) -> None:
    host = Machine(*TRIALS[trial])
    trial(host)
    assert host.there == set()


def test_namespaces_of_probes_that_were_killed_go(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    names = ["stackbook-probe-99999999 (id: 3)", f"stackbook-probe-{os.getpid()}", "stackbook-probe-mine", "blue", "7"]

    class Host:
        def run(self, argv, **_):
            deleted.extend(argv[3:] if argv[2] == "delete" else [])
            return Result(tuple(argv), 0, "\n".join(names), "", 0.0)

    kernel_probes.sweep_probes(Host())
    assert deleted == ["stackbook-probe-99999999"]


def test_objects_go_when_applying_them_was_stopped() -> None:
    from stackbook.lessons.istio import proxies

    def stopped(_: object) -> Iterator[None]:
        raise KeyboardInterrupt

    deleted: list[object] = []
    kube = SimpleNamespace(apply=stopped, delete=deleted.append)
    with suppress(KeyboardInterrupt), proxies.applied(SimpleNamespace(kube=kube), {"kind": "Service"}):
        pass
    assert deleted == [[{"kind": "Service"}]]
