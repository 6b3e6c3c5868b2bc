"""The lag of a group over time: how far its committed offset is behind the end of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackbook.analysis.display import PALETTE
from stackbook.core.errors import WaitTimeout
from stackbook.lessons.ecosystem import groups
from stackbook.lessons.ecosystem.topics import Topic, Writer

GROUP = "billing"
_TICK, _SAMPLE = 0.05, 0.2
_CATCH_UP = 60.0


@dataclass
class Timeline:
    """Samples of a topic and a group that reads it.

    Attributes:
        samples: seconds since the start, messages written, messages handled (the committed offsets).
        events: seconds since the start, and what was done.
        stopped_at: how many messages were written while the consumer was away.
        by_tool: the lag that Kafka's own tool prints while the consumer is away.
    """

    samples: list[tuple[float, int, int]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    stopped_at: int = 0
    by_tool: int = -1

    @property
    def most(self) -> int:
        """The greatest lag that was sampled."""
        return max((written - handled for _, written, handled in self.samples), default=0)

    @property
    def last(self) -> int:
        """The lag of the last sample."""
        return self.samples[-1][1] - self.samples[-1][2] if self.samples else -1


class _Watch:
    """Writes at a constant rate, lets a consumer read, and samples both."""

    def __init__(self, topic: Topic, rate: float) -> None:
        self.topic, self.rate = topic, rate
        self.writer, self.timeline = Writer(topic), Timeline()
        self.start = time.monotonic()
        self._sampled = 0.0

    def now(self) -> float:
        return time.monotonic() - self.start

    def event(self, text: str) -> None:
        self.timeline.events.append((self.now(), text))

    def sample(self, *, always: bool = False) -> None:
        if always or self.now() - self._sampled >= _SAMPLE:
            self._sampled = self.now()
            ends, handled = self.topic.ends(), self.topic.committed(GROUP)
            self.timeline.samples.append((self.now(), sum(ends.values()), sum(handled.values())))

    def run(self, seconds: float, reader: groups.Member | None) -> None:
        """Write for some seconds, while the reader reads."""
        begin, first = self.now(), self.writer.sent
        while self.now() - begin < seconds:
            due = first + int((self.now() - begin) * self.rate)
            for key, value in groups.orders(due - self.writer.sent, first=self.writer.sent):
                self.writer.send(key, value)
            if reader:
                reader.look(_TICK)
            else:
                self.writer.look(_TICK)
            self.sample()


def watch(
    topic: Topic,
    by_tool: Callable[[str], Mapping[int, int]],
    *,
    rate: float = 200.0,
    seconds: tuple[float, float] = (1.5, 2.0),
) -> Timeline:
    """Let a consumer read what is written, stop it while the writer goes on, and start it again.

    Args:
        topic: an empty topic.
        by_tool: returns the lag by partition of a group, given its full name, as Kafka's own tool prints it.
        rate: messages per second.
        seconds: how long the consumer reads, and how long it is away.

    Raises:
        WaitTimeout: the consumer did not catch up.
    """
    here = _Watch(topic, rate)
    with groups.member(topic, GROUP) as first:
        groups.together([first], lambda: first.rebalances > 0, what=f"{GROUP} to join", timeout=30)
        here.start = time.monotonic()
        here.run(seconds[0], first)
        here.writer.finish()
        first.read_all(timeout=30)
        here.sample(always=True)
    here.event("the consumer stops")
    before = here.writer.sent
    here.run(seconds[1], None)
    here.writer.finish()
    here.timeline.stopped_at = here.writer.sent - before
    here.sample(always=True)
    here.event("the producer stops")
    here.timeline.by_tool = sum(by_tool(topic.group(GROUP)).values())
    here.sample(always=True)
    here.event("the consumer is back")
    with groups.member(topic, GROUP) as second:
        while here.timeline.last != 0:
            second.look(_TICK, most=50)
            here.sample(always=True)
            if here.now() > here.timeline.events[-1][0] + _CATCH_UP:
                raise WaitTimeout(f"{GROUP} to catch up", _CATCH_UP, last=f"a lag of {here.timeline.last}")
    return here.timeline


def figure(timeline: Timeline) -> Any:
    """Messages written and handled over time; the space between the curves is the lag."""
    import matplotlib.pyplot as plt

    times, written, handled = zip(*timeline.samples, strict=True)
    fig, axes = plt.subplots()
    axes.fill_between(times, written, handled, color=PALETTE[5], alpha=0.4, label="lag")
    axes.plot(times, written, color=PALETTE[0], linewidth=2.5, label="written: end of the log")
    axes.plot(times, handled, color=PALETTE[1], linestyle="--", linewidth=2.5, label="handled: committed offset")
    for number, (at, text) in enumerate(timeline.events):
        axes.axvline(
            at, color=PALETTE[(2, 3, 6)[number % 3]], linewidth=2, linestyle=(":", "-.", "-")[number % 3], label=text
        )
    axes.set(title="A consumer that was away, and catches up", xlabel="time in s", ylabel="messages")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
