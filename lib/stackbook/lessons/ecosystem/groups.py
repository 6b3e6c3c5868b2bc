"""Groups that read a topic of the lab's Kafka: their members, who has which partition, and what a rebalance changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.lessons.ecosystem.topics import ASK, SETTINGS, Message, Topic, plain

if TYPE_CHECKING:
    import confluent_kafka

CUSTOMERS = tuple(f"customer-{number}" for number in range(10))
_JOIN = 30.0
"""Seconds for members to join or leave a group."""


class Member:
    """A consumer: one member of a group. It reads from the start of the log if its group has no offset yet.

    Its offset is committed only after its messages were handled, so a member that dies loses none.

    Args:
        topic: the topic.
        group: the group's short name.
        name: the member's name; partitions are given to the members in the order of their names.
        waiting: start to read only when `go` is called.
    """

    def __init__(self, topic: Topic, group: str, name: str, *, waiting: bool = False) -> None:
        from confluent_kafka import Consumer

        self.topic, self.group, self.name = topic, group, name
        self.messages: list[Message] = []
        self.rebalances = 0
        self.left = False
        self._waiting = waiting
        settings = {"bootstrap.servers": topic.bootstrap, "group.id": topic.group(group), "client.id": name,
                    "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 6000,
                    "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 100, "partition.assignment.strategy": "range",
                    **SETTINGS}  # fmt: skip
        self._consumer = Consumer(settings)
        self._consumer.subscribe([topic.name], on_assign=self._assigned)

    def _assigned(self, consumer: confluent_kafka.Consumer, partitions: Sequence[Any]) -> None:
        self.rebalances += 1
        consumer.assign(list(partitions))
        if self._waiting:
            consumer.pause(list(partitions))

    @property
    def partitions(self) -> list[int]:
        """The partitions that it reads now."""
        return sorted(at.partition for at in self._consumer.assignment())

    def go(self) -> None:
        """Start to read."""
        self._waiting = False
        self._consumer.resume(self._consumer.assignment())

    def look(self, seconds: float = 0.05, *, most: int = 500) -> int:
        """Read what is there, and commit the offset; returns how many messages that were.

        Raises:
            CheckFailed: the broker reports an error that the client cannot repair by itself.
        """
        found = self._consumer.consume(most, seconds)
        for message in found:
            if error := message.error():
                if error.code() not in _repaired():
                    raise CheckFailed(f"reading {self.topic.name} failed: {error.str()}")
                continue
            self.messages.append(plain(message))
        if any(message.error() is None for message in found):
            self._commit()
        return len(found)

    def _commit(self) -> None:
        from confluent_kafka import KafkaException

        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:  # the partitions were given to another member, or the broker is away
            if error.args[0].code() not in _repaired():
                raise CheckFailed(f"the offset of {self.group} was not committed: {error.args[0].str()}") from error

    def read_all(self, *, timeout: float = 60.0) -> list[Message]:
        """Read until the group's offset is at the end of each partition, as far as these are now; returns what was read.

        Raises:
            WaitTimeout: it did not get there in time.
        """
        ends = self.topic.ends()
        together([self], lambda: self._reached(ends), what=f"{self.group} to read everything", timeout=timeout)
        return self.messages

    def _reached(self, ends: dict[int, int]) -> bool:
        from confluent_kafka import KafkaException, TopicPartition

        if self.rebalances == 0:
            return False
        places = [TopicPartition(self.topic.name, number) for number in ends]
        try:
            committed = self._consumer.committed(places, timeout=ASK)
        except KafkaException:  # the broker is away; the deadline ends the wait
            return False
        return all(ends[at.partition] == 0 or at.offset >= ends[at.partition] for at in committed)

    def leave(self) -> None:
        """Leave the group; its partitions go to the others at once."""
        if not self.left:
            self.left = True
            self._consumer.close()


def together(members: Sequence[Member], done: Callable[[], bool], *, what: str, timeout: float) -> None:
    """Let members read in turn until a condition holds.

    Raises:
        WaitTimeout: it does not hold in time; the error says what each member has.
    """
    start = time.monotonic()
    while not done():
        for member in members:
            member.look()
        if time.monotonic() - start > timeout:
            seen = "; ".join(f"{m.name} has partitions {m.partitions}, read {len(m.messages)}" for m in members)
            raise WaitTimeout(what, timeout, last=seen)


@contextlib.contextmanager
def member(topic: Topic, group: str, name: str = "a", *, waiting: bool = False) -> Iterator[Member]:
    """A member of a group while the block runs; see `Member`."""
    found = Member(topic, group, name, waiting=waiting)
    try:
        yield found
    finally:
        found.leave()


def orders(count: int, *, first: int = 0) -> list[tuple[str, str]]:
    """Messages as (key, value): numbered orders of ten customers in turn.

    >>> orders(2, first=10)
    [('customer-0', 'order 10'), ('customer-1', 'order 11')]
    """
    return [(CUSTOMERS[number % len(CUSTOMERS)], f"order {number}") for number in range(first, first + count)]


def by_partition(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """How many messages each partition has, and of which customers."""
    rows = []
    for number in sorted({message.partition for message in messages}):
        mine = [message for message in messages if message.partition == number]
        keys = sorted({message.key.removeprefix("customer-") for message in mine})
        rows.append({"partition": number, "messages": len(mine), "customers": ", ".join(keys)})
    return rows


def out_of_order(messages: Sequence[Message]) -> list[str]:
    """The orders that were read after a later order of the same customer.

    >>> out_of_order([Message(0, 0, "c", "order 2"), Message(0, 1, "c", "order 1"), Message(1, 0, "d", "order 0")])
    ['order 1']
    """
    newest: dict[str, int] = {}
    late = []
    for message in messages:
        number = int(message.value.removeprefix("order "))
        if number < newest.get(message.key, -1):
            late.append(message.value)
        newest[message.key] = max(number, newest.get(message.key, -1))
    return late


def read_alone(topic: Topic, group: str, *, timeout: float = 60.0) -> list[Message]:
    """What a group of one member reads, up to the present end of the topic."""
    with member(topic, group) as one:
        return one.read_all(timeout=timeout)


def read_shared(topic: Topic, group: str, names: Sequence[str], *, timeout: float = 60.0) -> dict[str, list[Message]]:
    """What each member of a group reads, if they begin when each of them has its partitions; by the member's name."""
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(member(topic, group, name, waiting=True)) for name in names]
        together(members, lambda: settled(members, topic), what=f"the members of {group} to join", timeout=_JOIN)
        for one in members:
            one.go()
        wanted = sum(topic.ends().values())
        together(
            members,
            lambda: sum(len(one.messages) for one in members) >= wanted and not sum(topic.lag(group).values()),
            what=f"{group} to read everything",
            timeout=timeout,
        )
        return {one.name: one.messages for one in members}


def settled(members: Sequence[Member], topic: Topic) -> bool:
    """Whether each partition belongs to one of these members, and each member has joined."""
    held = sorted(number for one in members for number in one.partitions)
    return held == list(range(topic.partitions)) and all(one.rebalances for one in members)


def rebalances(topic: Topic, group: str, *, batch: int) -> list[dict[str, Any]]:
    """Three members of a group, one after the other, and the first one leaves: who has which partition, and reads how many.

    At each moment, a batch of messages is written and read.
    """
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        members: list[Member] = []

        def moment(what: str, before: Mapping[str, int]) -> None:
            here = [one for one in members if not one.left]
            done = lambda: settled(here, topic) and all(one.rebalances > before.get(one.name, 0) for one in here)  # noqa: E731
            together(here, done, what=f"a rebalance of {group}", timeout=_JOIN)
            read = {one.name: len(one.messages) for one in members}
            topic.write(orders(batch))
            total = sum(read.values()) + batch
            together(here, lambda: sum(len(one.messages) for one in members) >= total, what="the batch", timeout=_JOIN)
            rows.append({"moment": what, **{one.name: _share(one, read[one.name]) for one in members}})

        for name, what in (("a", "a is alone"), ("b", "b joins"), ("c", "c joins")):
            before = {one.name: one.rebalances for one in members}
            members.append(stack.enter_context(member(topic, group, name)))
            moment(what, before)
        before = {one.name: one.rebalances for one in members}
        members[0].leave()
        moment("a leaves", before)
    return [{"moment": row["moment"], **{one.name: row.get(one.name, "") for one in members}} for row in rows]


def _share(one: Member, before: int) -> str:
    """A member's partitions and how many messages of the batch it has read, like `0, 1: 100 messages`."""
    if one.left:
        return "gone"
    held = ", ".join(map(str, one.partitions))
    return f"{held}: {len(one.messages) - before} messages" if held else "waits"


def _repaired() -> tuple[int, ...]:
    """The errors that librdkafka repairs by itself: it connects and joins again."""
    from confluent_kafka import KafkaError

    names = (
        "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_WAIT_COORD", "_NO_OFFSET", "NOT_LEADER_FOR_PARTITION",
        "LEADER_NOT_AVAILABLE", "UNKNOWN_TOPIC_OR_PART", "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS",
    )  # fmt: skip
    return tuple(getattr(KafkaError, name) for name in names)
