"""What makes a plot hard to read is named, and a figure that has it is not shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb
from stackbook.analysis import display, plot_lint
from stackbook.cluster.flannel import Packet, draw_packet
from stackbook.config.profile import Profile
from stackbook.lessons.machines import topology


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
