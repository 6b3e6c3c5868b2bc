"""Chapter 14's Kafka: its manifest, the way to it, and the accounts that must notice what is lost, doubled or out of order."""

from __future__ import annotations

import contextlib
import doctest
import ipaddress
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from stackbook.analysis import plot_lint
from stackbook.analysis.display import PALETTE
from stackbook.app import checks
from stackbook.cluster import manifests, port_forward
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.ecosystem import broker, consumer_trial, durability, groups, lag
from stackbook.lessons.ecosystem.consumer_trial import Trial
from stackbook.lessons.ecosystem.topics import Message

VALUES = {
    "image_kafka": "lab/kafka:4",
    "node": "k8s-node1",
    "address": "127.64.0.1",
    "heap_mb": "256",
    "limit_mb": "768",
}


def documents() -> dict[tuple[str, str], Any]:
    text = manifests.render("kafka.yaml", fingerprint="f", **VALUES)
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text)}


@pytest.mark.parametrize("module", [broker, groups, durability])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


# The manifest


def test_the_broker_keeps_its_data_on_one_machine_and_stands_outside_of_the_mesh() -> None:
    found = documents()
    assert found["Namespace", "kafka"]["metadata"]["labels"] == {
        "stackbook.lab/made": "true",
        "istio-injection": "disabled",
    }
    pod = found["StatefulSet", "kafka"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "k8s-node1"}
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["data"]["hostPath"]["path"] == "/var/lib/stackbook/kafka"
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert all(f"{kind}Probe" in container for kind in ("startup", "readiness", "liveness"))
    assert container["resources"]["limits"] == {"memory": "768Mi"}
    assert container["securityContext"]["runAsNonRoot"] and container["securityContext"]["runAsUser"] == 1000


def test_each_way_to_the_broker_has_an_address_that_can_be_reached_on_it() -> None:
    text = documents()["ConfigMap", "kafka"]["data"]["server.properties"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    assert settings["advertised.listeners"].split(",") == [
        "PODS://kafka-0.kafka.kafka.svc.cluster.local:9092", f"HOST://127.64.0.1:{broker.PORT}",
    ]  # fmt: skip
    assert settings["listeners"].split(",") == [
        "PODS://:9092",
        f"HOST://127.0.0.1:{broker.PORT}",
        "CONTROLLER://127.0.0.1:9093",
    ]
    assert "zookeeper.connect" not in settings and settings["process.roles"] == "broker,controller"
    assert settings["auto.create.topics.enable"] == "false", "a misspelt name must not become a topic"


def test_the_shell_of_the_broker_is_not_filled_in_by_the_template() -> None:
    (container,) = documents()["StatefulSet", "kafka"]["spec"]["template"]["spec"]["containers"]
    script = container["command"][-1]
    assert "java -Xms256m -Xmx256m $flags kafka.Kafka" in script
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0


def test_labs_have_loopback_addresses_of_their_own() -> None:
    found = {broker.address(name) for name in ("stackbook", "shop", "class-1", "class-2")}
    assert len(found) == 4
    assert all(ipaddress.ip_address(one).is_loopback and one != "127.0.0.1" for one in found)


# The way to it


def test_a_pod_that_is_not_ready_or_goes_is_nothing_to_forward_to() -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}], "container_statuses": [{"restart_count": 2}]}
    assert port_forward.instance({"metadata": {"uid": "a"}, "status": status}) == "a 2"
    assert port_forward.instance({"metadata": {"uid": "a", "deletion_timestamp": "now"}, "status": status}) == ""
    assert port_forward.instance({"metadata": {"uid": "a"}, "status": None}) == ""


COUNTS_STARTS = (
    "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); n = len(p.read_text()) if p.exists() else 0; "
    "p.write_text('x' * (n + 1)); time.sleep(60 if n >= int(sys.argv[2]) else 0)"
)
"""Stands for kubectl: it writes down that it was started; the first ones end at once, like for a pod that is gone."""


def test_a_forward_that_ends_is_started_again_until_the_block_ends(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    began = time.monotonic()
    with port_forward.kept([sys.executable, "-c", COUNTS_STARTS, str(starts), "2"], {}, lambda: "pod"):
        until(lambda: starts.exists() and len(starts.read_text()) == 3, what="three starts", timeout=30, every=0.1)
    assert time.monotonic() - began < 30, "the last one was ended with the block"


def test_a_forward_to_a_pod_that_was_replaced_is_started_again(tmp_path: Path) -> None:
    """kubectl goes on as if nothing had happened; while no pod is Ready, none is started."""
    starts, uid = tmp_path / "starts", ["first"]
    with port_forward.kept([sys.executable, "-c", COUNTS_STARTS, str(starts), "0"], {}, lambda: uid[0]):
        until(lambda: starts.exists() and len(starts.read_text()) == 1, what="the first start", timeout=30, every=0.1)
        uid[0] = ""
        time.sleep(1.5)
        assert len(starts.read_text()) == 1, "nothing to forward to yet"
        uid[0] = "second"
        until(lambda: len(starts.read_text()) == 2, what="the second start", timeout=30, every=0.1)


def test_a_killed_process_leaves_no_forward_that_would_hold_the_port(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    program = (
        "import sys, time; from stackbook.cluster.port_forward import kept\n"
        "with kept([sys.executable, '-c', sys.argv[1], sys.argv[2], '0'], {}, lambda: 'pod'): time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, COUNTS_STARTS, str(starts)])
    until(starts.exists, what="the start", timeout=30, every=0.1)
    process.kill()
    process.wait(10)
    command = f"-c {COUNTS_STARTS}".encode()

    def running() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ")
                if command in line and str(starts).encode() in line:
                    found.append(path.parent.name)
        return found

    until(lambda: not running(), what="its child to be gone", timeout=10, every=0.1)


class Kube:
    """A cluster with these pods of Kafka."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self._pods = list(pods)

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        assert (namespace, selector) == ("kafka", "app=kafka")
        return self._pods


def pod(ready: bool) -> dict[str, Any]:
    state = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    return {
        "metadata": {"name": "kafka-0", "uid": "1"}, "spec": {"nodeName": "k8s-node1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}],
                   "containerStatuses": [{"name": "kafka", "ready": ready, "state": state}]},
    }  # fmt: skip


def test_without_a_broker_the_postcondition_fails_at_once() -> None:
    check = next(check for check in checks.of("14-ecosystem") if check.id == "kafka")
    lab: Any = SimpleNamespace(kube=Kube())
    with pytest.raises(CheckFailed, match="there is no Kafka on this lab") as failed:
        check.prove(lab)
    assert failed.value.fix == "stackbook run --only 14"
    with pytest.raises(CheckFailed, match=r"not Ready: .*CrashLoopBackOff"):
        check.prove(SimpleNamespace(kube=Kube(pod(False))))  # type: ignore[arg-type]
    assert broker.demand(Kube(pod(True))) == "k8s-node1"  # type: ignore[arg-type]


def test_the_table_of_kafkas_own_tool() -> None:
    text = (
        "\nGROUP           TOPIC     PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG   CONSUMER-ID  HOST  CLIENT-ID\n"
        "lag-1-billing   lag-1     0          200             500             300   -            -     -\n"
        "lag-1-billing   lag-1     1          190             490             300   -            -     -\n"
    )
    assert broker.parse_lag(text) == {0: 300, 1: 300}
    for wrong in ("", "Error: Consumer group 'x' does not exist.", "PARTITION LAG\n0 -\n"):
        with pytest.raises(CheckFailed):
            broker.parse_lag(wrong)


# Accounts


def message(number: int, key: str = "customer-0", partition: int = 0) -> Message:
    return Message(partition, number, key, f"order {number}")


WHOLE = [message(number) for number in range(5)]


def test_a_right_account() -> None:
    found = durability.account(WHOLE, WHOLE)
    assert found.right
    assert found.row() == {"acknowledged": 5, "read": 5, "lost": 0, "read twice": 0, "out of order": 0}


@pytest.mark.parametrize(
    ("read", "field", "values"),
    [
        (WHOLE[1:], "lost", ("order 0",)),
        ([*WHOLE, WHOLE[4]], "twice", ("order 4",)),
        ([*WHOLE[:2], WHOLE[3], WHOLE[2], WHOLE[4]], "late", ("order 2",)),
    ],
)
def test_what_is_lost_doubled_or_out_of_order_is_noticed(read: list[Message], field: str, values: tuple[str]) -> None:
    found = durability.account(WHOLE, read)
    assert not found.right
    assert getattr(found, field) == values


def test_orders_of_different_customers_may_overtake_each_other() -> None:
    assert not groups.out_of_order([message(7, "customer-7", 1), message(3, "customer-3")])


def test_partitions_with_their_customers() -> None:
    rows = groups.by_partition([message(0), message(1, "customer-1", 1), message(10)])
    assert rows == [
        {"partition": 0, "messages": 2, "customers": "0"}, {"partition": 1, "messages": 1, "customers": "1"},
    ]  # fmt: skip


# Members


class FakeMember:
    def __init__(self, name: str, partitions: list[int], rebalances: int = 1) -> None:
        self.name, self.partitions, self.rebalances, self.messages = name, partitions, rebalances, list[Message]()

    def look(self) -> int:
        return 0


def test_a_group_is_settled_when_each_partition_has_one_member_and_each_member_has_joined() -> None:
    topic: Any = SimpleNamespace(partitions=2)

    def settled(*members: FakeMember) -> bool:
        return groups.settled(members, topic)  # type: ignore[arg-type]

    assert settled(FakeMember("a", [0, 1]))
    assert settled(FakeMember("a", [0]), FakeMember("b", [1]), FakeMember("c", []))
    assert not settled(FakeMember("a", [0]))
    assert not settled(FakeMember("a", [0, 1]), FakeMember("b", [1]))
    assert not settled(FakeMember("a", [0, 1]), FakeMember("b", [], rebalances=0))


def test_members_that_never_get_there_are_named_with_what_they_have() -> None:
    with pytest.raises(WaitTimeout, match=r"waiting for the end; last seen: a has partitions \[0\], read 0"):
        groups.together([FakeMember("a", [0])], lambda: False, what="the end", timeout=0.1)  # type: ignore[list-item]


# Lag


def test_the_plot_of_a_lag_can_be_read() -> None:
    samples = [(0.0, 0, 0), (1.0, 200, 190), (2.0, 400, 190), (3.0, 400, 400)]
    timeline = lag.Timeline(samples, [(1.0, "the consumer stops"), (2.0, "the consumer is back")])
    assert (timeline.most, timeline.last) == (210, 0)
    assert plot_lint.problems(lag.figure(timeline), PALETTE) == []


# The challenge


def claims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Trial) -> list[bool]:
    from stackbook.lessons import challenges

    monkeypatch.setattr(consumer_trial, "run", lambda _lab, _program: trial)
    attempt: Any = SimpleNamespace(lab=None, folder=tmp_path, read=lambda _: "")
    held = []
    for claim in challenges.find("14-c").claims(attempt):
        try:
            held.append(bool(claim.prove()))
        except CheckFailed:
            held.append(False)
    return held


@pytest.mark.parametrize(
    ("trial", "held"),
    [
        (Trial(("1", "2"), ("2", "1"), 10, 0), [True, True, True, True]),
        (Trial(("1", "2"), ("1",), 700, 1), [False, False, True, False]),
        (Trial(("1", "2"), ("1", "2", "1"), 10, 0), [True, True, False, True]),
        (Trial(("1", "2"), ("1", "2"), 900, 950), [False, True, True, False]),
        (Trial(("1", "2"), (), 10, 0), [True, False, False, True]),
    ],
)
def test_each_claim_of_the_challenge_can_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Trial, held: list[bool]
) -> None:
    assert claims(monkeypatch, tmp_path, trial) == held


def test_the_learners_program_is_python_in_each_form() -> None:
    from stackbook.lessons.challenges import ecosystem

    texts = {
        name: ecosystem._READS.format(**slip) for name, slip in {**ecosystem._SLIPS, "right": ecosystem._RIGHT}.items()
    }
    assert len(set(texts.values())) == 4
    for name, text in texts.items():
        compile(text, f"{name}.py", "exec")
