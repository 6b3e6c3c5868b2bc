"""What makes a plot hard to read is named, and a figure that has it is not shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from stackbook.analysis import display, plot_lint, statistics
from stackbook.cluster.flannel import Packet, draw_packet
from stackbook.config.profile import Profile
from stackbook.lessons.istio import bookinfo_proofs
from stackbook.lessons.machines import topology
from stackbook.observability.tracing import figures as traces
from stackbook.traffic import figures as traffic


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with matplotlib.rc_context():
        display.style_plots()
        yield
    plt.close("all")


def good() -> tuple[Any, Any]:
    fig, axes = plt.subplots()
    axes.bar(["v1", "v2"], [50, 49], color=list(display.PALETTE[:2]), edgecolor="white")
    axes.axhline(50, color="#555555")
    axes.scatter([0, 1], [50, 49], color=display.PALETTE[2], alpha=0.5)
    axes.set(title="Requests by version", ylabel="requests")
    return fig, axes


def test_a_good_plot_has_no_problem() -> None:
    assert plot_lint.problems(good()[0], display.PALETTE) == []


BAD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "no title": ("no title", lambda axes: axes.set_title("")),
    "no unit": ("y axis of plot 1 shows numbers", lambda axes: axes.set_ylabel(" ")),
    "no unit on a scale of powers": ("y axis", lambda axes: (axes.set_yscale("log"), axes.set_ylabel(""))),
    "negative numbers": ("y axis", lambda axes: (axes.set_ylim(-9, -1), axes.set_ylabel(""))),
    "a small label": ("'requests' has 9 points", lambda axes: axes.set_ylabel("requests", fontsize=9)),
    "small ticks": ("has 8 points", lambda axes: axes.tick_params(labelsize=8)),
    "a small note": ("'here' has 11 points", lambda axes: axes.annotate("here", (0, 1), fontsize=11)),
    "a small legend": ("'a' has 10 points", lambda axes: axes.legend([axes.patches[0]], ["a"], fontsize=10)),
    "a small note, axes switched off": (
        "'x' has 6 points", lambda axes: (axes.axis("off"), axes.text(0, 0, "x", fontsize=6)),
    ),
    "red and green bars": ("#ff0000 is not a colour", lambda axes: axes.patches[0].set_facecolor("red")),
    "a green line": ("#008000 is not a colour", lambda axes: axes.plot([0, 1], [1, 2], color="green")),
    "a green mark": ("#00ff00 is not a colour", lambda axes: axes.scatter([0], [1], color="lime")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_plot_that_is_hard_to_read_is_not_shown(name: str) -> None:
    said, harm = BAD[name]
    fig, axes = good()
    harm(axes)
    assert any(said in problem for problem in plot_lint.problems(fig, display.PALETTE))
    with pytest.raises(ValueError, match="hard to read"):
        display.figure(fig, alt="Bar chart")


def test_shared_axes_need_one_name_and_a_switched_off_one_none() -> None:
    fig, (upper, lower) = plt.subplots(2, sharex=True)
    for axes in (upper, lower):
        axes.plot([1, 2], [1, 2])
        axes.set_ylabel("seconds")
    lower.set_xlabel("requests")
    fig.suptitle("Both")
    assert plot_lint.problems(fig, display.PALETTE) == []
    upper.axis("off")
    upper.set_ylabel("")
    assert plot_lint.problems(fig, display.PALETTE) == []


def test_the_drawings_can_be_read() -> None:
    packet = Packet("192.168.98.3", "192.168.98.4", 8472, 1, "10.244.0.5", "10.244.1.7", "ICMP echo")
    for fig in (topology.machines(Profile()), draw_packet(packet)):
        assert plot_lint.problems(fig, display.PALETTE) == []


# What is left of red, green and blue (linear) for whom a kind of cones is missing: Viénot, Brettel and Mollon 1999.
SEEN = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no long ones": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "no middle ones": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


def apart(one: str, other: str, cones: str) -> float:
    """The distance of two colours as somebody sees them, in linear red, green and blue from 0 to 1."""
    first, second = (
        [sum(k * c**2.2 for k, c in zip(row, to_rgb(colour), strict=True)) for row in SEEN[cones]]
        for colour in (one, other)
    )
    return math.dist(first, second)


@pytest.mark.parametrize("cones", SEEN)
def test_the_palette_is_told_apart_with_any_colour_vision(cones: str) -> None:
    near = [pair for pair in combinations(display.PALETTE, 2) if apart(*pair, cones) < 0.07]
    assert not near


def test_red_and_green_would_not_be() -> None:
    assert apart("#c00000", "#4a7000", "all cones") > 0.4
    assert min(apart("#c00000", green, "no middle ones") for green in ("#4a7000", "#608000", "#708000")) < 0.07


def span(trace: str, number: str, parent: str, app: str, kind: str, start: float, seconds: float) -> dict[str, Any]:
    return {
        "trace_id": trace, "span_id": number, "parent_id": parent, "app": app, "kind": kind, "start": start, "seconds": seconds,
        "error": False, "operation": "reviews.default",
    }  # fmt: skip


def test_two_traces_stand_apart_in_a_waterfall() -> None:
    rows = [span("a", "1", "", "load", "client", 0, 0.04), span("a", "2", "1", "reviews", "server", 0.01, 0.02)]
    one = traces.waterfall(pd.DataFrame(rows), title="One")
    assert plot_lint.problems(one, display.PALETTE) == []
    assert not [t for t in one.axes[0].texts if t.get_text().startswith("trace")]
    rows += [
        span("b", "3", "", "reviews", "client", 0.02, 0.01),
        span("b", "4", "3", "ratings", "server", 0.022, 0.001),
    ]
    two = traces.waterfall(pd.DataFrame(rows), title="Two")
    assert plot_lint.problems(two, display.PALETTE) == []
    assert [t.get_text() for t in two.axes[0].texts if t.get_text().startswith("trace")] == ["trace 1", "trace 2"]
    assert [line.get_ydata()[0] for line in two.axes[0].lines] == [1.5]  # between the two spans of each


def test_only_what_was_predicted_is_marked_and_small_shares_can_be_told() -> None:
    checks = {
        name: statistics.test_share(k, 1000, claim, alpha=0.001)
        for name, k, claim in (("a", 500, 0.5), ("b", 0, 0.5), ("c", 11, 0.01))
    }
    marks = traffic.shares(checks, predicted=["a"], title="Marked").axes[0]
    assert [
        line.get_xdata()[0] for line in marks.lines if line.get_marker() == "|" and line.get_markersize() == 22
    ] == [50]
    small = traffic.shares(checks, small=0.1, title="Small")
    assert small.axes[0].get_xscale() == "log" and small.axes[0].get_xlim()[0] < 0.1
    assert plot_lint.problems(small, display.PALETTE) == []


def test_a_restart_is_shown_as_bars_of_whole_seconds() -> None:
    frame = pd.DataFrame({"started": [n / 20 for n in range(70)], "status": 200})
    frame["served_by"] = ["old" if started < 1.5 else "new" for started in frame["started"]]
    fig = bookinfo_proofs.plot_restart(frame)
    heights = [[bar.get_height() for bar in bars] for bars in fig.axes[0].containers]
    assert heights == [[20, 10, 0], [0, 10, 20]]
    assert plot_lint.problems(fig, display.PALETTE) == []
