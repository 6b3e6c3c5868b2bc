"""The bookshop's topic `order-placed`: all its records with their headers, the lag of its groups, and a record sent again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.ecosystem.topics import ASK, SETTINGS, Topic

NAME, PARTITIONS = "order-placed", 3
GROUPS = ("mail", "counter")


@dataclass(frozen=True)
class Record:
    """A record of the topic; its key is the order's id."""

    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]


def opened(bootstrap: str) -> Topic:
    """The topic, for questions about it; see `topics`."""
    from confluent_kafka.admin import AdminClient

    return Topic(bootstrap, NAME, PARTITIONS, AdminClient({"bootstrap.servers": bootstrap, **SETTINGS}))


def records(bootstrap: str, *, timeout: float = 60.0) -> list[Record]:
    """All records that the topic has now, by partition and offset.

    Raises:
        WaitTimeout: they were not read in time.
    """
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    ends = opened(bootstrap).ends()
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"{NAME}-reader", "enable.auto.commit": False, **SETTINGS}
    )
    found: list[Record] = []
    reached = dict.fromkeys(ends, 0)
    try:
        consumer.assign([TopicPartition(NAME, number, OFFSET_BEGINNING) for number in ends])
        deadline = time.monotonic() + timeout
        while any(reached[number] < end for number, end in ends.items()):
            if time.monotonic() > deadline:
                raise WaitTimeout(f"every record of {NAME}", timeout, last=f"read up to {reached} of {ends}")
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    record = _record(message)
                    reached[record.partition] = record.offset + 1
                    found.append(record)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _record(message: Any) -> Record:
    headers = {name: value.decode() for name, value in message.headers() or []}
    return Record(
        message.partition(), message.offset(), (message.key() or b"").decode(), message.value() or b"", headers
    )


def send_again(bootstrap: str, record: Record) -> None:
    """Write a record a second time, as a producer does that has not seen the first acknowledgement.

    Raises:
        CheckFailed: it was not acknowledged in time.
    """
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", **SETTINGS})
    headers: Any = list(record.headers.items())
    producer.produce(NAME, key=record.key, value=record.value, headers=headers, partition=record.partition)
    if producer.flush(ASK):
        raise CheckFailed(f"{NAME}: a record was not acknowledged within {ASK:.0f} s")


def wait_handled(bootstrap: str, *, timeout: float = 120.0) -> None:
    """Wait until every group of the shop has handled everything that the topic has.

    Raises:
        WaitTimeout: a group is behind; the error says how far.
    """
    asked = opened(bootstrap)

    def behind() -> dict[str, int]:
        return {group: sum(asked.lag(group).values()) for group in GROUPS}

    until(lambda: not any(behind().values()), what="mail and counter to handle every event", timeout=timeout, every=0.5,
          last=lambda: f"behind by {behind()}", tolerate=(CheckFailed,))  # fmt: skip
