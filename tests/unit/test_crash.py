"""A crash is SIGKILL by the machine's runtime, at the container that is meant, and never on a machine that is not the lab's."""

from __future__ import annotations

from typing import Any

import pytest
from stackbook.cluster import crash
from stackbook.core.errors import CheckFailed

POD: dict[str, Any] = {
    "metadata": {"name": "kafka-0", "namespace": "kafka", "uid": "u1"},
    "spec": {"nodeName": "k8s-node1"},
    "status": {"containerStatuses": [{"name": "kafka", "containerID": "containerd://abc"},
                                     {"name": "istio-proxy", "containerID": "containerd://def"}]},
}  # fmt: skip


class Recorder:
    """A machine, or kubectl: it notes what is run."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def run(self, argv: list[str]) -> None:
        self.ran.append(tuple(argv))

    def kubectl(self, *argv: str) -> None:
        self.ran.append(argv)


def test_the_containers_process_gets_sigkill_on_its_machine() -> None:
    machine, other = Recorder(), Recorder()
    machines: Any = {"k8s-node1": machine, "k8s-master": other}
    crash.kill(machines, POD)
    crash.kill(machines, POD, "istio-proxy")
    assert [argv[-2:] for argv in machine.ran] == [("SIGKILL", "abc"), ("SIGKILL", "def")]
    assert other.ran == []


def test_a_lost_pod_is_dead_before_it_is_deleted() -> None:
    both = Recorder()
    machines: Any = {"k8s-node1": both}
    kube: Any = both
    assert crash.lose(kube, machines, POD) == "u1"
    assert [argv[0] for argv in both.ran] == ["ctr", "delete"]
    assert both.ran[1][1:5] == ("pod", "kafka-0", "-n", "kafka")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec": {"nodeName": "theirs"}}, "is on theirs, which is not a machine of this lab"),
        ({"spec": {}}, "is on no machine, which is not"),
        ({"status": {}}, "has no running container"),
        ({"status": {"containerStatuses": [{"name": "kafka"}]}}, "has no running container"),
    ],
)
def test_what_cannot_be_killed_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        crash.kill({"k8s-node1": Recorder()}, {**POD, **change})  # type: ignore[dict-item]
