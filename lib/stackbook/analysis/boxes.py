"""Pictures of what runs where: boxes in boxes, and arrows between them, laid out by their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.analysis.display import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lengths are in points.
_TEXT, _LINE, _CHARACTER = 12.0, 17.0, 7.3
_PAD, _GAP, _BELOW = 9.0, 13.0, 40.0


@dataclass(frozen=True)
class Box:
    """A box with a title, lines of text, and rows of boxes inside.

    Args:
        title: its first line, in bold.
        lines: further lines.
        rows: the boxes inside, row by row from the top; the boxes of a row share its width.
        name: how arrows call it; the title if it is empty. No two boxes of a picture have the same.
        colour: the number of its frame's colour in the palette; black if it is None.
    """

    title: str
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[Box, ...], ...] = ()
    name: str = ""
    colour: int | None = None

    @property
    def key(self) -> str:
        """The name by which arrows find it."""
        return self.name or self.title

    @property
    def width(self) -> float:
        """The least width."""
        texts = max(len(text) * _CHARACTER * (1.12 if text == self.title else 1) for text in (self.title, *self.lines))
        rows = [sum(box.width for box in row) + _GAP * (len(row) - 1) for row in self.rows]
        return max(texts, *rows, 0.0) + 2 * _PAD if rows else texts + 2 * _PAD

    @property
    def height(self) -> float:
        """The height: its text, and below it the rows."""
        return self._text + sum(max(box.height for box in row) + _GAP * 1.7 for row in self.rows)

    @property
    def _text(self) -> float:
        return _LINE * (1 + len(self.lines)) + 1.2 * _PAD

    def placed(self, x: float, top: float, width: float) -> Iterator[tuple[Box, Rectangle]]:
        """It and the boxes inside, each with its place; `top` is the upper edge."""
        yield self, Rectangle(x, top - self.height, width, self.height)
        edge = top - self._text - _GAP * 0.3
        for row in self.rows:
            room = width - 2 * _PAD - _GAP * (len(row) - 1)
            stretch = room / sum(box.width for box in row)
            left = x + _PAD
            for box in row:
                yield from box.placed(left, edge, box.width * stretch)
                left += box.width * stretch + _GAP
            edge -= max(box.height for box in row) + _GAP * 1.7


@dataclass(frozen=True)
class Arrow:
    """An arrow from one box to another, with a text.

    Args:
        start: the key of the box where it begins.
        end: the key of the box where its head is.
        text: what is said beside it; may be empty.
        colour: the number of its colour in the palette; black if it is None.
        both: whether it has a head at each end.
    """

    start: str
    end: str
    text: str = ""
    colour: int | None = None
    both: bool = False


@dataclass(frozen=True)
class Rectangle:
    """A rectangle by its lower left corner, in points."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    def edge(self, towards: tuple[float, float]) -> tuple[float, float]:
        """Where the line from its middle to a point leaves it.

        >>> Rectangle(0, 0, 10, 10).edge((25, 5))
        (10.0, 5.0)
        """
        x, y = self.middle
        dx, dy = towards[0] - x, towards[1] - y
        shares = [half / abs(way) for half, way in ((self.width / 2, dx), (self.height / 2, dy)) if way]
        share = min([1.0, *shares])
        return x + dx * share, y + dy * share

    def ways(self, other: Rectangle) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where a line to another rectangle begins and ends: at the sides that face each other if one is beside the other.

        >>> Rectangle(0, 0, 10, 10).ways(Rectangle(20, 30, 10, 10))
        ((10, 5.0), (20, 35.0))
        """
        (_, here), (_, there) = self.middle, other.middle
        if self.x + self.width <= other.x:
            return (self.x + self.width, here), (other.x, there)
        if other.x + other.width <= self.x:
            return (self.x, here), (other.x + other.width, there)
        return self.edge(other.middle), other.edge(self.middle)


@dataclass(frozen=True)
class Picture:
    """A figure, and the text that says the same to those who do not see it."""

    figure: Any
    alt: str


def draw(columns: Sequence[Sequence[Box]], arrows: Sequence[Arrow] = (), *, title: str) -> Picture:
    """Draw boxes in columns from left to right, and arrows between them.

    Raises:
        KeyError: an arrow names a box that is not there.
        ValueError: two boxes have the same key.
    """
    import matplotlib.pyplot as plt

    places, width, height = _places(columns, arrows)
    ways = [(arrow, places[arrow.start][1], places[arrow.end][1]) for arrow in arrows]
    fig, axes = plt.subplots(figsize=(width / 72, height / 72 + 0.5))
    for box, place in places.values():
        _box(axes, box, place)
    for way in ways:
        _arrow(axes, *way)
    axes.set(xlim=(0, width), ylim=(0, height), title=title)
    axes.axis("off")
    fig.subplots_adjust(left=0, right=1, bottom=0, top=height / (height + 36))
    return Picture(fig, describe(columns, arrows, title=title))


def _places(
    columns: Sequence[Sequence[Box]], arrows: Sequence[Arrow]
) -> tuple[dict[str, tuple[Box, Rectangle]], float, float]:  # fmt: skip
    """The place of each box by its key, and the width and height of all."""
    heights = [sum(box.height for box in column) + _BELOW * (len(column) - 1) + 2 * _GAP for column in columns]
    height, x = max(heights), _GAP
    gap = max([len(arrow.text) * _CHARACTER for arrow in arrows] + [40.0]) + 30
    places: dict[str, tuple[Box, Rectangle]] = {}
    for column, own in zip(columns, heights, strict=True):
        width, top = max(box.width for box in column), height - (height - own) / 2 - _GAP
        for each in column:
            for box, place in each.placed(x, top, width):
                if box.key in places:
                    raise ValueError(f"two boxes are called {box.key!r}")
                places[box.key] = (box, place)
            top -= each.height + _BELOW
        x += width + gap
    return places, x - gap + _GAP, height


def _box(axes: Axes, box: Box, place: Rectangle) -> None:
    from matplotlib.patches import FancyBboxPatch

    edge = PALETTE[6] if box.colour is None else PALETTE[box.colour]
    face = "#f4f4f4" if box.rows else "#ffffff"
    axes.add_patch(FancyBboxPatch((place.x, place.y), place.width, place.height, facecolor=face, edgecolor=edge,
                                  linewidth=2, boxstyle="round,pad=0,rounding_size=5"))  # fmt: skip
    top = place.y + place.height - _PAD - _LINE / 2
    for number, text in enumerate((box.title, *box.lines)):
        axes.text(place.x + place.width / 2, top - number * _LINE, text, fontsize=_TEXT, ha="center", va="center",
                  fontweight="bold" if number == 0 else "normal")  # fmt: skip


def _arrow(axes: Axes, arrow: Arrow, start: Rectangle, end: Rectangle) -> None:
    from matplotlib.patches import FancyArrowPatch

    begin, tip = start.ways(end)
    colour = PALETTE[6] if arrow.colour is None else PALETTE[arrow.colour]
    style = "<|-|>" if arrow.both else "-|>"
    axes.add_patch(FancyArrowPatch(begin, tip, arrowstyle=style, mutation_scale=14, linewidth=1.6, color=colour,
                                   shrinkA=0, shrinkB=0, zorder=3))  # fmt: skip
    if arrow.text:
        axes.text((begin[0] + tip[0]) / 2, (begin[1] + tip[1]) / 2, arrow.text, fontsize=_TEXT, ha="center", va="center",
                  zorder=4, bbox={"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.5})  # fmt: skip


def describe(columns: Sequence[Sequence[Box]], arrows: Sequence[Arrow], *, title: str) -> str:
    """The picture in words.

    >>> describe([[Box("a", rows=((Box("b"),),))], [Box("c", ("port 1",))]], [Arrow("b", "c", "asks")], title="Who asks")
    'Who asks. a, with b inside; c (port 1). Arrows: b to c (asks).'
    """
    boxes = "; ".join(_words(box) for column in columns for box in column)
    titles = {box.key: box.title for column in columns for each in column for box in _all(each)}
    ways = [f"{titles[arrow.start]} {'and' if arrow.both else 'to'} {titles[arrow.end]}" + (f" ({arrow.text})" if arrow.text else "")
            for arrow in arrows]  # fmt: skip
    return f"{title}. {boxes}." + (f" Arrows: {', '.join(dict.fromkeys(ways))}." if ways else "")


def _all(box: Box) -> Iterator[Box]:
    yield box
    for row in box.rows:
        for inner in row:
            yield from _all(inner)


def _words(box: Box) -> str:
    lines = f" ({', '.join(box.lines)})" if box.lines else ""
    inside = ", ".join(_words(inner) for row in box.rows for inner in row)
    return f"{box.title}{lines}" + (f", with {inside} inside" if inside else "")
