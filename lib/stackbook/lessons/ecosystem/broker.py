"""The lab's Kafka: deploying it, the way to it from this host, and killing it.

A Kafka client asks the address that it was given for the brokers, and then connects to the addresses that these advertise.
So this host cannot use any free port: the broker advertises one loopback address of this host, on which its port is
forwarded. The address depends on the lab's name, because several labs may run on one host.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackbook.cluster import crash, manifests, own_namespaces
from stackbook.cluster.problems import pod_problem
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.lessons.ecosystem import groups, topics
from stackbook.observability.logs.deploy import node

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

NAMESPACE, POD, SELECTOR = "kafka", "kafka-0", "app=kafka"
PORT = 9094
TURN = "kafka"
"""The turn of those who stop the broker, or must not see it stopped."""
_TOOLS = ("java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
          "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", "/opt/kafka/libs/*")  # fmt: skip


def address(name: str) -> str:
    """The loopback address at which this host reaches the broker of the lab with this name.

    >>> address("stackbook")
    '127.100.103.126'
    """
    digest = hashlib.sha256(f"kafka of {name}".encode()).digest()
    return f"127.{64 + digest[0] % 128}.{digest[1]}.{1 + digest[2] % 254}"


def deploy(lab: Lab, *, heap_mb: int = 256, step: Step | None = None, timeout: float = 150.0) -> int:
    """Deploy Kafka and wait until its pod is Ready; returns how many objects changed.

    Raises:
        InputError: there is a namespace `kafka` that is not the lab's.
        WaitTimeout: the pod is not Ready in time; the error has the likely cause.
    """
    place = node(lab.kube)
    lab.images.load("messaging", on=[place] if lab.profile.target != "cluster" else None, step=step)
    values = {"image_kafka": lab.images.reference("kafka"), "node": place, "address": address(lab.profile.lab),
              "heap_mb": str(heap_mb), "limit_mb": str(heap_mb + 512)}  # fmt: skip
    own_namespaces.create(lab.kube, NAMESPACE)
    changed = lab.kube.apply(manifests.marked("kafka.yaml", **values))
    lab.kube.wait_rollout(NAMESPACE, "statefulset/kafka", timeout=timeout)
    return changed


def demand(kube: Kube) -> str:
    """The name of the machine on which the broker runs.

    Raises:
        CheckFailed: there is no broker, or it is not Ready.
    """
    pods = kube.pods(NAMESPACE, SELECTOR)
    if not pods:
        raise CheckFailed("there is no Kafka on this lab", fix="stackbook run --only 14")
    if problem := pod_problem(pods[0]):
        raise CheckFailed(f"Kafka's pod is not Ready: {problem}", fix="stackbook run --only 14")
    return str(pods[0]["spec"]["nodeName"])


@contextlib.contextmanager
def reached(lab: Lab, *, timeout: float = 60.0) -> Iterator[str]:
    """While the block runs, the broker can be reached from this host; yields the address for a client's `bootstrap.servers`.

    Raises:
        CheckFailed: there is no broker, or it is not Ready.
        WaitTimeout: it does not answer; the error has the likely cause.
    """
    demand(lab.kube)
    here = address(lab.profile.lab)
    with lab.kube.port_kept(NAMESPACE, POD, PORT, address=here):
        bootstrap = f"{here}:{PORT}"
        wait_answers(lab, bootstrap, timeout=timeout)
        yield bootstrap


def wait_answers(lab: Lab, bootstrap: str, *, timeout: float = 60.0) -> None:
    """Wait until the broker answers a client of this host.

    Raises:
        WaitTimeout: it does not answer in time; the error has the likely cause.
    """
    until(lambda: topics.answers(bootstrap), what=f"Kafka to answer at {bootstrap}", timeout=timeout, every=0.3,
          cause=lambda: lab.kube.explain(NAMESPACE, SELECTOR))  # fmt: skip


def uid(kube: Kube) -> str:
    """The uid of the broker's pod: a pod that takes its place has another.

    Raises:
        CheckFailed: there is no broker, or it is not Ready.
    """
    demand(kube)
    return str(kube.pods(NAMESPACE, SELECTOR)[0]["metadata"]["uid"])


def kill(lab: Lab) -> str:
    """Kill the broker at once, without a chance to store anything; returns the uid of the pod that is gone."""
    demand(lab.kube)
    return crash.lose(lab.kube, lab.machines, lab.kube.pods(NAMESPACE, SELECTOR)[0])


def wait_replaced(lab: Lab, uid: str, bootstrap: str, *, timeout: float = 150.0) -> float:
    """Wait until another pod than the one with this uid is Ready and answers; returns how many seconds that took.

    Raises:
        WaitTimeout: it does not answer in time; the error has the likely cause.
    """
    start = time.monotonic()

    def anew() -> bool:
        pods = lab.kube.pods(NAMESPACE, SELECTOR)
        return bool(pods) and pods[0]["metadata"]["uid"] != uid and not pod_problem(pods[0])

    until(anew, what="another pod of Kafka to be Ready", timeout=timeout, every=0.5,
          cause=lambda: lab.kube.explain(NAMESPACE, SELECTOR))  # fmt: skip
    wait_answers(lab, bootstrap, timeout=max(1.0, timeout - (time.monotonic() - start)))
    return time.monotonic() - start


def lag_by_its_own_tool(kube: Kube, group: str, *, timeout: float = 60.0) -> dict[int, int]:
    """The lag of a group by partition, as Kafka's own command-line tool prints it in the broker's pod.

    Raises:
        CheckFailed: its output is not a table with these columns.
    """
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    argv = (*_TOOLS, tool, "--bootstrap-server", "localhost:9092", "--describe", "--group", group)
    return parse_lag(kube.exec(NAMESPACE, POD, *argv, container="kafka", timeout=timeout).stdout)


def parse_lag(text: str) -> dict[int, int]:
    r"""The lag by partition in a table of Kafka's ConsumerGroupCommand.

    Raises:
        CheckFailed: there is no such table.

    >>> parse_lag("GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG\nmail orders 0 5 9 4\n")
    {0: 4}
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    head = next((row for row in rows if "PARTITION" in row and "LAG" in row), None)
    if head is None:
        raise CheckFailed(f"Kafka's tool did not print the group: {text.strip()[-300:] or 'no output'}")
    partition, lag = head.index("PARTITION"), head.index("LAG")
    try:
        return {int(row[partition]): int(row[lag]) for row in rows[rows.index(head) + 1 :]}
    except (IndexError, ValueError) as error:
        raise CheckFailed(f"Kafka's tool printed another table: {text.strip()[-300:]}") from error


def works(lab: Lab) -> str:
    """Write a message and read it again as a group; returns where the broker runs.

    Raises:
        CheckFailed: there is no broker, or the message did not come back.
        WaitTimeout: the broker does not answer.
    """
    place = demand(lab.kube)
    with (
        lab.turn("whether Kafka works", of=TURN),
        reached(lab) as bootstrap,
        topics.temporary(bootstrap, partitions=1) as topic,
    ):
        topic.write([("key", "the message")])
        values = [message.value for message in groups.read_alone(topic, "check", timeout=30)]
        if values != ["the message"]:
            raise CheckFailed(f"one message was written, and the group read {values}")
    return f"one broker on {place}; a written message is read again"
