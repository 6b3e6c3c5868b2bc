"""A topic of the lab's Kafka: writing messages, and asking for offsets. `groups` reads them.

The client is Confluent's, on librdkafka. https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import pause

if TYPE_CHECKING:
    import confluent_kafka
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")
SETTINGS: Mapping[str, Any] = {
    "log_level": 0,  # librdkafka would write each lost connection to the page
    "reconnect.backoff.max.ms": 500,
    "socket.timeout.ms": 10_000,
}
"""What all clients have in common."""
ASK = 10.0
"""Seconds for one question to the broker."""
_WRITE = 60.0
"""Seconds until what was written is acknowledged."""


@dataclass(frozen=True)
class Message:
    """A message of a topic, and its place there."""

    partition: int
    offset: int
    key: str
    value: str


@dataclass(frozen=True)
class Topic:
    """A topic.

    Attributes:
        bootstrap: the address of the broker.
        name: its name.
        partitions: how many partitions it has.
        admin: the client for questions about it.
    """

    bootstrap: str
    name: str
    partitions: int
    admin: AdminClient = field(repr=False, compare=False)

    def group(self, name: str) -> str:
        """The full name of a group of this topic: the topic's name makes it unique."""
        return f"{self.name}-{name}"

    # writing

    def write(self, messages: Iterable[tuple[str, str]], *, timeout: float = _WRITE) -> list[Message]:
        """Write (key, value) pairs and wait for all acknowledgements; returns the messages in the order of the acknowledgements.

        Raises:
            CheckFailed: not every message was acknowledged in time; the message has the reason.
        """
        writer = Writer(self)
        for key, value in messages:
            writer.send(key, value)
        writer.finish(timeout=timeout)
        return writer.acknowledged

    # asking

    def ends(self) -> dict[int, int]:
        """The end of each partition: the offset of the next message."""
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        asked = {TopicPartition(self.name, number): OffsetSpec.latest() for number in range(self.partitions)}

        def ask() -> dict[int, int]:
            answers = self.admin.list_offsets(asked, request_timeout=ASK)
            return {at.partition: int(found.result(ASK).offset) for at, found in answers.items()}

        return _patiently(ask)

    def committed(self, group: str) -> dict[int, int]:
        """The committed offset of a group in each partition; 0 where it has not committed one.

        A consumer that does not join asks. The admin client's questions about groups may abort the process when a connection
        breaks: https://github.com/confluentinc/librdkafka/pull/5397
        """
        from confluent_kafka import Consumer, TopicPartition

        places = [TopicPartition(self.name, number) for number in range(self.partitions)]
        asker = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group(group), **SETTINGS})
        try:
            found = _patiently(lambda: asker.committed(places, timeout=ASK))
        finally:
            asker.close()
        return {at.partition: max(0, at.offset) for at in found}

    def lag(self, group: str) -> dict[int, int]:
        """How many messages of each partition a group has not handled yet: the end minus the committed offset."""
        place = self.committed(group)
        return {number: end - place.get(number, 0) for number, end in self.ends().items()}

    def forget(self, partition: int, *, before: int) -> None:
        """Delete the messages of a partition before an offset, as the end of their retention does."""
        from confluent_kafka import TopicPartition

        answers = self.admin.delete_records([TopicPartition(self.name, partition, before)], request_timeout=ASK)
        for answer in answers.values():
            answer.result(ASK)


class Writer:
    """Writes messages that no broken connection loses or doubles: acks=all, and an idempotent producer.

    Args:
        topic: the topic.
    """

    def __init__(self, topic: Topic) -> None:
        from confluent_kafka import Producer

        self.topic = topic
        self.acknowledged: list[Message] = []
        self.times: list[float] = []
        self.waited: list[float] = []
        self.refused: list[str] = []
        self.sent = 0
        # The partitioner is that of Kafka's own Java client, so that both put a key into the same partition.
        settings = {"bootstrap.servers": topic.bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
                    "partitioner": "murmur2_random", "message.timeout.ms": 300_000, **SETTINGS}  # fmt: skip
        self._producer = Producer(settings)

    def send(self, key: str, value: str) -> None:
        """Hand one message to the client, which sends it in the background, and again if the connection breaks."""
        self._producer.produce(self.topic.name, key=key.encode(), value=value.encode(), on_delivery=self._delivered)
        self.sent += 1
        self._producer.poll(0)

    def look(self, seconds: float = 0.0) -> int:
        """Take note of acknowledgements for some seconds; returns how many messages are acknowledged."""
        self._producer.poll(seconds)
        return len(self.acknowledged)

    def finish(self, *, timeout: float = _WRITE) -> None:
        """Wait until each message is acknowledged.

        Raises:
            CheckFailed: not every message was acknowledged in time; the message has the reason.
        """
        self._producer.flush(timeout)
        if len(self.acknowledged) < self.sent:
            why = self.refused[0] if self.refused else f"no acknowledgement within {timeout:.0f} s"
            raise CheckFailed(f"{len(self.acknowledged)} of {self.sent} messages were acknowledged: {why}")

    def _delivered(self, error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is None:
            self.acknowledged.append(plain(message))
            self.times.append(time.monotonic())
            self.waited.append(message.latency() or 0.0)
        else:
            self.refused.append(str(error))


@contextlib.contextmanager
def temporary(bootstrap: str, *, partitions: int, name: str = "orders") -> Iterator[Topic]:
    """A topic of its own while the block runs; it is deleted afterwards."""
    from confluent_kafka.admin import NewTopic

    topic = Topic(bootstrap, f"{name}-{secrets.token_hex(4)}", partitions, _admin(bootstrap))
    for made in topic.admin.create_topics([NewTopic(topic.name, partitions, 1)], request_timeout=ASK).values():
        made.result(ASK)
    try:
        yield topic
    finally:
        _remove(topic)


def _remove(topic: Topic) -> None:
    """Delete a topic; the broker forgets its groups, which have no other one. What is gone already is not an error."""
    from confluent_kafka import KafkaException

    with contextlib.suppress(KafkaException, TimeoutError):
        for gone in topic.admin.delete_topics([topic.name], request_timeout=ASK, operation_timeout=ASK).values():
            gone.result(ASK)


def _patiently(ask: Callable[[], T]) -> T:
    """The answer to a question; asked again while a partition or a group has no leader yet, as right after a start.

    Raises:
        CheckFailed: it is not answered in time; the message has the broker's last reason.
    """
    from confluent_kafka import KafkaException

    deadline = time.monotonic() + ASK
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise CheckFailed(f"Kafka refuses a question: {error.args[0].str()}") from error
        pause(0.1)


def answers(bootstrap: str) -> bool:
    """Whether the broker answers with the address that this host can reach."""
    from confluent_kafka import KafkaException

    try:
        brokers = _admin(bootstrap).list_topics(timeout=5).brokers
    except KafkaException:
        return False
    return [f"{broker.host}:{broker.port}" for broker in brokers.values()] == [bootstrap]


def _admin(bootstrap: str) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": bootstrap, **SETTINGS})


def plain(message: confluent_kafka.Message) -> Message:
    """A client's message as plain data."""
    key, value = message.key() or b"", message.value() or b""
    return Message(message.partition() or 0, message.offset() or 0, _text(key), _text(value))


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()
