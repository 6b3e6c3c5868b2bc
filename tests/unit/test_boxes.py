"""Pictures of boxes and arrows: nothing overlaps, everything can be read, and the alternative text says the same."""

from __future__ import annotations

import doctest
from itertools import combinations

import pytest
from stackbook.analysis import boxes, plot_lint
from stackbook.analysis.boxes import Arrow, Box, Rectangle
from stackbook.analysis.display import PALETTE

MACHINE = Box("k8s-master", ("192.168.98.3",), rows=(
    (Box("kube-scheduler"), Box("kube-controller-manager")), (Box("kube-apiserver", ("port 6443",)),), (Box("etcd"),),
))  # fmt: skip
COLUMNS = [[Box("this host", ("kubectl",))], [MACHINE], [Box("a"), Box("b", colour=2)]]
ARROWS = [Arrow("this host", "kube-apiserver", "HTTPS", colour=0), Arrow("kube-scheduler", "kube-apiserver"),
          Arrow("a", "b", both=True)]  # fmt: skip


def apart(one: Rectangle, other: Rectangle) -> bool:
    beside = one.x + one.width <= other.x or other.x + other.width <= one.x
    return beside or one.y + one.height <= other.y or other.y + other.height <= one.y


def within(one: Rectangle, other: Rectangle) -> bool:
    left, bottom = one.x >= other.x, one.y >= other.y
    return (
        left and bottom and one.x + one.width <= other.x + other.width and one.y + one.height <= other.y + other.height
    )


def test_examples() -> None:
    assert doctest.testmod(boxes).failed == 0


def test_no_two_boxes_overlap_unless_one_is_inside_the_other() -> None:
    places, width, height = boxes._places(COLUMNS, ARROWS)
    assert len(places) == 8
    inside = {inner.key for row in MACHINE.rows for inner in row}
    for (one, (_, first)), (other, (_, second)) in combinations(places.items(), 2):
        if one == "k8s-master" and other in inside:
            assert within(second, first), other
        else:
            assert apart(first, second), (one, other)
    assert all(within(place, Rectangle(0, 0, width, height)) for _, place in places.values())


def test_no_text_is_wider_than_its_box() -> None:
    picture = boxes.draw(COLUMNS, ARROWS, title="What runs where")
    (axes,) = picture.figure.axes
    picture.figure.canvas.draw()
    frames = [patch.get_window_extent() for patch in axes.patches if hasattr(patch, "get_boxstyle")]
    texts = {text.get_text(): text.get_window_extent() for text in axes.texts if not text.get_bbox_patch()}
    assert len(texts) == 11
    for text, extent in texts.items():
        assert any(frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
                   for frame in frames), text  # fmt: skip


def test_it_can_be_read_and_its_text_says_the_same() -> None:
    picture = boxes.draw(COLUMNS, ARROWS, title="What runs where")
    assert plot_lint.problems(picture.figure, PALETTE) == []
    assert "this host to kube-apiserver (HTTPS)" in picture.alt and "a and b" in picture.alt
    assert "k8s-master (192.168.98.3), with kube-scheduler" in picture.alt


def test_a_wrong_name_and_a_name_twice_are_refused() -> None:
    with pytest.raises(KeyError, match="nobody"):
        boxes.draw(COLUMNS, [Arrow("this host", "nobody")], title="x")
    with pytest.raises(ValueError, match="two boxes are called 'a'"):
        boxes.draw([*COLUMNS, [Box("a")]], title="x")
