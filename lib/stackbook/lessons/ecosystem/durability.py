"""What a killed broker loses: written, acknowledged and read messages are compared, one by one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stackbook.core.waiting import pause
from stackbook.lessons.ecosystem import groups
from stackbook.lessons.ecosystem.topics import Message, Topic, Writer

_RECOVERY = 150.0
"""Seconds until everything must be acknowledged; a broker needs 10 to 30 s to start again."""


@dataclass(frozen=True)
class Account:
    """The account of a topic.

    Attributes:
        acknowledged: how many messages the broker has acknowledged.
        read: how many messages a group has read.
        lost: acknowledged messages that were not read.
        twice: messages that were read more than once.
        late: messages that were read after a later one of the same customer.
    """

    acknowledged: int
    read: int
    lost: tuple[str, ...]
    twice: tuple[str, ...]
    late: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether each acknowledged message was read once, in its customer's order."""
        return not self.lost and not self.twice and not self.late

    def row(self) -> dict[str, int]:
        """The account in numbers."""
        return {
            "acknowledged": self.acknowledged, "read": self.read, "lost": len(self.lost),
            "read twice": len(self.twice), "out of order": len(self.late),
        }  # fmt: skip


def account(acknowledged: Sequence[Message], read: Sequence[Message]) -> Account:
    """Compare what was acknowledged with what was read.

    >>> account([Message(0, 0, "c", "order 0"), Message(0, 1, "c", "order 1")], [Message(0, 0, "c", "order 0")]).lost
    ('order 1',)
    """
    times = Counter(message.value for message in read)
    lost = [message.value for message in acknowledged if message.value not in times]
    twice = [value for value, count in times.items() if count > 1]
    return Account(len(acknowledged), len(read), tuple(lost), tuple(twice), tuple(groups.out_of_order(read)))


@dataclass(frozen=True)
class Outage:
    """What happened around a kill.

    Attributes:
        account: the account of all messages, read after the broker was back.
        before: how many messages were acknowledged before the kill.
        gap: the longest time that an order waited for its acknowledgement, in seconds.
    """

    account: Account
    before: int
    gap: float


def write_through(
    topic: Topic, kill: Callable[[], object], *, count: int, rate: float = 250.0, patience: float = 20.0,
    timeout: float = _RECOVERY,
) -> Outage:  # fmt: skip
    """Write orders, kill the broker after a third of them, go on, and read everything when all are acknowledged.

    A killed pod goes on for a moment. So the writer sends the last third only when nothing is acknowledged any more.

    Args:
        topic: an empty topic.
        kill: kills the broker, and returns at once.
        count: how many orders.
        rate: at most so many orders per second; the writer goes on while the broker is away.
        patience: how many seconds to wait at most until the broker is away.
        timeout: deadline for the last acknowledgement, in seconds.

    Raises:
        CheckFailed: an order was not acknowledged in time.
        WaitTimeout: not everything could be read afterwards.
    """
    writer, waiting, third = Writer(topic), groups.orders(count)[::-1], count // 3
    _send(writer, waiting, leave=count - third, rate=rate)
    writer.finish(timeout=timeout)
    before = len(writer.acknowledged)
    kill()
    deadline = time.monotonic() + patience
    while not _away(writer) and time.monotonic() < deadline:
        _send(writer, waiting, leave=max(third, len(waiting) - 1), rate=rate)
        writer.look(0.02)
    _send(writer, waiting, leave=0, rate=rate)
    writer.finish(timeout=timeout)
    read = groups.read_alone(topic, "after", timeout=60)
    return Outage(account(writer.acknowledged, read), before, max(writer.waited))


def _send(writer: Writer, waiting: list[tuple[str, str]], *, leave: int, rate: float) -> None:
    """Send orders from the end of a list, at most `rate` in a second, until only so many are left."""
    while len(waiting) > leave:
        writer.send(*waiting.pop())
        pause(1 / rate)


def _away(writer: Writer) -> bool:
    """Whether something was sent, and nothing was acknowledged for a second."""
    return writer.sent > writer.look() and time.monotonic() - writer.times[-1] > 1.0
