"""Stopping and starting a lab: what podman is told, what counts as Ready again, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeHost
from stackbook.app import life, readiness, status
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.cluster import early_pods
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.results import Result
from stackbook.machines import transports
from stackbook.machines.providers import power
from stackbook.machines.providers.podman import Embedded

CGROUPS = "stat -f -c %T /sys/fs/cgroup"
PODMAN = "podman --cgroup-manager=cgroupfs --runtime=runc"
V1 = "tmpfs"
PS = f"{PODMAN} ps -a --no-trunc --filter label=stackbook.lab=stackbook --format json"
MASTER, WORKER = "stackbook-k8s-master", "stackbook-k8s-node1"


class Podman(FakeHost):
    """podman with the lab's containers, which stop, pause and go on as they are told; each is process 77."""

    def __init__(self, deaf: bool = False, **states: str) -> None:
        super().__init__({CGROUPS: V1})
        self.states = {name.replace("_", "-"): state for name, state in states.items()}
        self.deaf = deaf

    def run(self, argv, **more):
        text = " ".join(argv)
        entries = [{"Names": [n], "State": s, "Pid": 77, "Id": "c0ffee"} for n, s in self.states.items()]
        self.answers[PS] = json.dumps(entries)
        verb, names = text.removeprefix(f"{PODMAN} ").split()[0], [word for word in argv if word in self.states]
        if text.startswith(PODMAN) and verb in ("stop", "pause", "unpause"):
            self.answers[text] = (125, "", "Error: it is deaf\n") if self.deaf else ""
            after = {"stop": "exited", "pause": "paused", "unpause": "running"}[verb]
            self.states |= {} if self.deaf else dict.fromkeys(names, after)
        return super().run(argv, **more)

    @property
    def told(self) -> list[str]:
        return [c.removeprefix(f"{PODMAN} ") for c in self.ran if " ps " not in c and c != CGROUPS]


@pytest.fixture(autouse=True)
def process(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc" / "77").mkdir(parents=True)
    (tmp_path / "proc" / "77" / "cgroup").write_text("1:cpu:/libpod_parent/libpod-c0ffee\n")
    monkeypatch.setattr(transports, "_PROC", tmp_path / "proc")


def lab(monkeypatch: pytest.MonkeyPatch, **states: str) -> Podman:
    host = Podman(**states)
    monkeypatch.setattr(life, "Embedded", lambda profile: Embedded(profile, host))
    return host


def nothing(text: str) -> None: ...


# stopping


def test_a_paused_machine_goes_on_before_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab(monkeypatch, stackbook_k8s_master="running", stackbook_k8s_node1="paused", stackbook_clone_a="exited")
    said: list[str] = []
    life.stop(Profile(), say=said.append)
    assert sorted(host.told) == [f"stop -t 12 {MASTER}", f"stop -t 12 {WORKER}", f"unpause {WORKER}"]
    assert host.told.index(f"unpause {WORKER}") < host.told.index(f"stop -t 12 {WORKER}")
    assert said[-1].startswith("✓ the lab 'stackbook' is stopped") and "stackbook start" in said[-1]


def test_a_machine_that_does_not_stop_is_named() -> None:
    provider = Embedded(Profile(), Podman(deaf=True, stackbook_k8s_master="running"))
    with pytest.raises(StackbookError, match=f"{MASTER} was told to stop but still runs: Error: it is deaf"):
        power.stop(provider, say=nothing)


def test_a_machine_whose_processes_end_later_than_podman_waits_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """podman gives up 5 s after SIGKILL; the last process ended while stackbook paused before its second look."""

    class Slow(Podman):
        def run(self, argv: Sequence[str], **more: Any) -> Result:
            answer = super().run(argv, **more)
            if "stop" not in argv:
                return answer
            self.states[MASTER] = "stopping"
            return Result(tuple(argv), 125, "", "Error: given PIDs did not die within timeout\n", 0.0, self.name)

    host = Slow(stackbook_k8s_master="running")
    monkeypatch.setattr("stackbook.core.waiting.pause", lambda seconds: host.states.update({MASTER: "exited"}))
    assert power.stop(Embedded(Profile(), host), say=nothing) == 1
    assert host.states == {MASTER: "exited"}


@pytest.mark.parametrize("command", [life.stop, life.start])
@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile(), "there is no lab 'stackbook' on this host — stackbook run"),
        (
            Profile(target="cluster"),
            "works only on machines that stackbook created; it did not create those of target 'cluster'",
        ),
    ],
)
def test_what_was_never_made_is_refused(
    monkeypatch: pytest.MonkeyPatch, command: Any, profile: Profile, said: str
) -> None:
    host = lab(monkeypatch, stackbook_clone_a="running")
    with pytest.raises(InputError) as refused:
        command(profile, say=nothing)
    assert said in str(refused.value)
    assert host.told == [] and not paths.states().exists()


def test_a_lab_that_does_not_run_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab(monkeypatch, stackbook_k8s_master="exited", stackbook_k8s_node1="exited")
    with pytest.raises(InputError, match="the lab 'stackbook' is not running — stackbook start"):
        life.stop(Profile(), say=nothing)
    assert host.told == []


@pytest.mark.parametrize("command", [life.stop, life.start])
def test_a_run_is_not_disturbed(monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    host = lab(monkeypatch, stackbook_k8s_master="running", stackbook_k8s_node1="running")
    with only_run("stackbook"), pytest.raises(InputError, match="another run uses the lab"):
        command(Profile(), say=nothing)
    assert host.told == []


@pytest.mark.parametrize("states", [{}, {"stackbook_k8s_master": "created", "stackbook_k8s_node1": "created"}])
def test_half_a_lab_is_not_started(monkeypatch: pytest.MonkeyPatch, states: dict[str, str]) -> None:
    lab(monkeypatch, **states)
    Store("stackbook").note_restoring("good")
    with pytest.raises(InputError, match=r"the restore of the snapshot 'good' was interrupted.*snapshot restore good"):
        life.start(Profile(), say=nothing)


def test_a_run_starts_a_stopped_lab_and_goes_on_when_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, stackbook_k8s_master="exited", stackbook_k8s_node1="exited")
    said: list[str] = []

    def wake(profile: Profile, *, say: Any) -> None:
        raise StackbookError("pods are not Ready")

    monkeypatch.setattr(life, "wake", wake)
    life.wake_if_stopped(Profile(), say=said.append)
    assert said == ["the lab is stopped: starting it", "  – pods are not Ready"]
    lab(monkeypatch, stackbook_k8s_master="running", stackbook_k8s_node1="exited")
    life.wake_if_stopped(Profile(), say=said.append)
    assert len(said) == 2, "a lab that runs in part is its chapters' own"


# pods that start too early

NETWORK, SUBNET = f"test -e {early_pods.NETWORK}", f"test -s {early_pods.SUBNET}"


def test_a_kubelet_tries_again_once_flannel_is_there() -> None:
    class Machine(FakeHost):
        """flannel is there at the third look."""

        def run(self, argv, **more):
            self.answers[SUBNET] = "" if self.ran.count(SUBNET) > 1 else (1, "", "")
            return super().run(argv, **more)

    host = Machine({NETWORK: "", "systemctl restart kubelet": ""})
    assert early_pods.retry(host, timeout=5)
    assert host.ran == [NETWORK, SUBNET, SUBNET, SUBNET, "systemctl restart kubelet"]


def test_a_kubelet_is_left_alone_where_flannel_does_not_come() -> None:
    assert early_pods.retry(FakeHost({NETWORK: (1, "", "")}), timeout=5), "flannel was never installed"
    late = FakeHost({NETWORK: "", SUBNET: (1, "", "")})
    assert not early_pods.retry(late, timeout=0.1)
    assert "systemctl restart kubelet" not in late.ran


# standing still


def test_machines_stand_still_together_and_go_on_whatever_happens() -> None:
    host = Podman(stackbook_k8s_master="running", stackbook_k8s_node1="running", stackbook_clone_a="exited")
    with pytest.raises(KeyboardInterrupt), power.paused(Embedded(Profile(), host)) as stood:
        assert stood == [MASTER, WORKER]
        raise KeyboardInterrupt
    assert host.told == [f"pause {MASTER} {WORKER}", f"unpause {MASTER} {WORKER}"]


def test_a_stopped_lab_stays_stopped() -> None:
    host = Podman(stackbook_k8s_master="exited")
    with power.paused(Embedded(Profile(), host)) as stood:
        assert stood == []
    assert host.told == []


# Ready again

SINCE = readiness.stamp(1_700_000_000)
BEFORE, AFTER = "2023-11-14T22:13:00Z", "2023-11-14T22:14:00Z"


def node(heartbeat: str, status: str = "True") -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat, "reason": "R", "message": "m"}
    return {"metadata": {"name": "n"}, "status": {"conditions": [ready]}}


def other_node(status: str) -> dict[str, Any]:
    """A node whose machine went on all the time."""
    return {**node(BEFORE, status), "metadata": {"name": "other"}}


def pod(started: str, *, phase: str = "Running", ready: str = "True", on: str = "n") -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"nodeName": on},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "c", "state": {"running": {"startedAt": started}}}],
        },
    }


@pytest.mark.parametrize(
    ("nodes", "pods", "said"),
    [
        ([], [], ["n: not registered"]),
        ([node(BEFORE)], [], ["n: its kubelet has not reported yet"]),
        ([node(AFTER, "False")], [], ["n: R: m"]),
        ([node(AFTER)], [pod(BEFORE)], ["d/p: not restarted yet"]),
        ([node(AFTER)], [pod(AFTER, ready="False")], ["d/p: Running: not ready yet"]),
        ([node(AFTER)], [pod(BEFORE, on="other"), pod(AFTER)], []),
        ([node(AFTER), other_node("False")], [], ["other: R: m"]),
        ([node(AFTER), other_node("True")], [], []),
        ([node(AFTER)], [pod(BEFORE, phase="Failed", ready="False")], []),
    ],
    ids=[
        "no node",
        "old report",
        "not Ready",
        "old container",
        "starting",
        "Ready",
        "another is not",
        "another is",
        "ended for good",
    ],
)
def test_what_the_api_server_remembers_does_not_count(nodes: list[Any], pods: list[Any], said: list[str]) -> None:
    assert readiness.waiting(nodes, pods, ["n"], SINCE) == said


def test_status_says_that_a_lab_is_stopped() -> None:
    found = {
        "profile": "p", "target": "embedded", "stopped": True, "nodes": {}, "istio": {}, "ingress": "", "problems": [],
        "machines": {"a": {"address": "192.0.2.1", "running": False}},
    }  # fmt: skip
    assert status.lines(found)[1:] == [
        "the lab is stopped: stackbook start continues it",
        "machine  a              192.0.2.1       stopped",
    ]
