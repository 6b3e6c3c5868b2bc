"""The four kinds of call, recorded message by message as the client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal

from stackbook.lessons.grpc import grpc, stubs


@dataclass(frozen=True)
class Event:
    """One message. `way` is "request", "reply", or "end", with which the client ends its requests."""

    way: Literal["request", "reply", "end"]
    text: str


def unary(channel: grpc.Channel) -> list[Event]:
    """SayHello: one request, one reply."""
    reply = stubs.stub(channel).SayHello(stubs.request("Ada"), timeout=5)
    return [Event("request", "Ada"), Event("reply", reply.message)]


def server_stream(channel: grpc.Channel, *, count: int = 3) -> list[Event]:
    """LotsOfReplies: one request, `count` replies."""
    replies = stubs.stub(channel).LotsOfReplies(stubs.request("Ada", count=count), timeout=5)
    return [Event("request", "Ada"), *(Event("reply", reply.message) for reply in replies)]


def client_stream(channel: grpc.Channel, *, names: tuple[str, ...] = ("Ada", "Bob", "Cem")) -> list[Event]:
    """LotsOfGreetings: several requests, one reply."""
    reply = stubs.stub(channel).LotsOfGreetings((stubs.request(name) for name in names), timeout=5)
    return [*(Event("request", name) for name in names), Event("end", "no more"), Event("reply", reply.message)]


def both_stream(channel: grpc.Channel, *, names: tuple[str, ...] = ("Ada", "Bob", "Cem")) -> list[Event]:
    """BidiHello in step: the client writes each request after it has read the reply to the one before."""
    waiting: SimpleQueue[Any] = SimpleQueue()

    def requests() -> Iterator[Any]:
        while (name := waiting.get()) is not None:
            yield stubs.request(name)

    replies = stubs.stub(channel).BidiHello(requests(), timeout=5)
    events = []
    for name in names:
        waiting.put(name)
        events += [Event("request", name), Event("reply", next(replies).message)]
    waiting.put(None)
    assert next(replies, None) is None
    return [*events, Event("end", "no more")]


KINDS = {
    "SayHello\n(unary)": unary,
    "LotsOfReplies\n(server stream)": server_stream,
    "LotsOfGreetings\n(client stream)": client_stream,
    "BidiHello\n(both stream)": both_stream,
}


def in_words(events: dict[str, list[Event]]) -> str:
    """The figure's alternative text."""
    told = []
    for title, happened in events.items():
        steps = ", ".join(f"{event.way} {event.text}" for event in happened)
        told.append(f"{title.partition(chr(10))[0]}: {steps}")
    return "; ".join(told)


def figure(events: dict[str, list[Event]]) -> Any:
    """A matplotlib figure: each kind as arrows between a client and a server, downwards in time."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    fig, panels = plt.subplots(1, len(events), figsize=(13, 5), sharey=True)
    longest = max(map(len, events.values()))
    style: dict[str, tuple[str, Any]] = {
        "request": ("#0072B2", "-"),
        "reply": ("#D55E00", "-"),
        "end": ("#0072B2", ":"),
    }
    for axes, (title, happened) in zip(panels, events.items(), strict=True):
        for x, name in ((0, "client"), (1, "server")):
            axes.plot([x, x], [-0.3, longest + 0.2], color="#555555", linewidth=2)
            axes.text(x, -0.45, name, ha="center", fontsize=12)
        for place, event in enumerate(happened):
            colour, line = style[event.way]
            start, end = (1, 0) if event.way == "reply" else (0, 1)
            arrow = {"arrowstyle": "-|>", "color": colour, "linestyle": line, "linewidth": 1.8}
            axes.annotate("", xy=(end, place + 0.65), xytext=(start, place + 0.45), arrowprops=arrow)
            axes.text(0.5, place + 0.42, event.text, ha="center", va="bottom", fontsize=12, color=colour)
        axes.set(xlim=(-0.3, 1.3), ylim=(longest + 0.3, -0.8))
        axes.set_title(title, fontsize=13)
        axes.axis("off")
    handles = [Line2D([], [], color=c, linestyle=s, label=w) for w, (c, s) in style.items()]
    fig.legend(handles=handles, loc="lower center", ncols=3, frameon=False, bbox_to_anchor=(0.5, -0.05))
    fig.suptitle("The four kinds of call, downwards in time")
    fig.tight_layout()
    return fig
