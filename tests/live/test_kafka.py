"""Chapter 14's Kafka on the live lab: each check fails when what it is about is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import mutate
import pytest
from labtools import sample
from stackbook.app import checks, session
from stackbook.core.errors import CheckFailed
from stackbook.lab.lab import Lab
from stackbook.lessons.ecosystem import broker, durability, groups, topics

pytestmark = pytest.mark.live
POSTCONDITION = next(check for check in checks.of("14-ecosystem") if check.id == "kafka")

# The steps that are run, what is changed in them, and what must not hold then.
BROKEN = {
    "no keys": (
        ("broker", "write"),
        {"topic.write(groups.orders(messages))": 'topic.write([("", value) for _, value in groups.orders(messages)])'},
        "each customer is in one partition",
    ),
    "a group that has read before": (
        ("broker", "write", "read"), {'groups.read_alone(topic, "audit")': 'groups.read_alone(topic, "mail")'},
        "a group that comes after all others reads N",
    ),
    "nothing is removed": (
        ("broker", "write", "retention"), {"topic.forget(0, before=ends[0] // 2)": "pass"}, "it reads what is left",
    ),
    "a partition for each member": (
        ("broker", "rebalance"), {'partitions=2, name="rebalance"': 'partitions=3, name="rebalance"'},
        "a member alone reads both partitions",
    ),
    "the tool asks for another group": (
        ("broker", "lag"), {"broker.lag_by_its_own_tool(lab.kube, group)": "{0: 1}"}, "Kafka's own tool prints the same",
    ),
    "nobody killed": (
        ("broker", "killed"), {"gone.append(broker.kill(lab))": 'gone.append("")'}, "another pod has taken the broker's place",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def kafka(lab: Lab) -> Iterator[Lab]:
    """The lab, seen from chapter 14, with Kafka, which nobody else stops meanwhile."""
    found = session.opened("14-ecosystem")
    with found.turn("the tests of Kafka", of=broker.TURN):
        broker.deploy(found)
        yield found


@pytest.mark.parametrize("name", sample(BROKEN, "a group that has read before"))
def test_what_is_broken_is_noticed(name: str, kafka: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, changes, words = BROKEN[name]
    monkeypatch.setenv("STACKBOOK_RUN", str(tmp_path / "run"))
    book = mutate.copy("14-ecosystem", *steps, changes=changes, leave="", proved=True)
    with pytest.raises(CheckFailed) as failed:
        mutate.run_here(book)
    assert re.search(words, failed.value.message), failed.value.message


def test_a_broker_that_forgets_or_doubles_messages_is_noticed(kafka: Lab) -> None:
    """What is acknowledged is taken away, or written a second time, instead of a kill."""
    with broker.reached(kafka) as bootstrap, topics.temporary(bootstrap, partitions=1, name="forgets") as topic:
        lost = durability.write_through(topic, lambda: topic.forget(0, before=5), count=60, patience=1).account
    assert not lost.right and lost.lost == tuple(value for _, value in groups.orders(5))
    with broker.reached(kafka) as bootstrap, topics.temporary(bootstrap, partitions=1, name="doubles") as topic:
        twice = durability.write_through(topic, lambda: topic.write(groups.orders(3)), count=60, patience=1).account
    assert not twice.right and twice.twice == tuple(value for _, value in groups.orders(3)) and not twice.lost


@pytest.mark.more
def test_the_postcondition_fails_without_a_broker_and_holds_again_with_its_data(kafka: Lab) -> None:
    scale = ("scale", "statefulset/kafka", "-n", broker.NAMESPACE)
    with broker.reached(kafka) as bootstrap, topics.temporary(bootstrap, partitions=1, name="kept") as topic:
        topic.write(groups.orders(20))
        try:
            kafka.kube.kubectl(*scale, "--replicas=0")
            kafka.kube.kubectl(
                "wait", "--for=delete", "pod/kafka-0", "-n", broker.NAMESPACE, "--timeout=240s", timeout=270
            )
            with pytest.raises(CheckFailed, match="there is no Kafka on this lab"):
                POSTCONDITION.prove(kafka)
        finally:
            kafka.kube.kubectl(*scale, "--replicas=1")
            kafka.kube.wait_rollout(broker.NAMESPACE, "statefulset/kafka", timeout=150)
        assert "one broker on" in POSTCONDITION.prove(kafka)
        broker.wait_answers(kafka, bootstrap)
        assert len(groups.read_alone(topic, "after")) == 20
