"""Checks that everybody can read a plot, on a projector and without the text around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

SMALLEST = 12
"""The minimum text size in points: 17 px at 100 dots per inch, or 12 px in a picture that is shown at 0.72 of its size."""

_QUIET = ("none", "None", "")


def problems(figure: Any, palette: Iterable[str]) -> list[str]:
    """What makes a matplotlib figure hard to read, one line for each problem.

    A figure needs a title, a label with the unit on each axis that shows numbers, and text of at least `SMALLEST`
    points. Its colours must be grey or from the palette, so that readers with any kind of colour vision can tell them
    apart.

    Args:
        figure: the figure; it is laid out to find out which ticks it has.
        palette: colours in a form that matplotlib accepts.
    """
    from matplotlib.colors import to_rgb

    figure.draw_without_rendering()
    known = [to_rgb(colour) for colour in palette]
    found = [*_titles(figure), *_axes(figure), *_texts(figure), *_colours(figure, known)]
    return list(dict.fromkeys(found))


def _drawn(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_visible()]


def _titles(figure: Any) -> Iterator[str]:
    suptitle = getattr(figure, "_suptitle", None)
    titles = [axes.get_title(loc) for axes in _drawn(figure) for loc in ("left", "center", "right")]
    if not any(map(str.strip, titles)) and not (suptitle and suptitle.get_text().strip()):
        yield "it has no title"


def _axes(figure: Any) -> Iterator[str]:
    """Axes that share their numbers need only one label, on the axis that shows the numbers."""
    for number, axes in enumerate(_drawn(figure), 1):
        if not axes.axison:
            continue
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            shown = [tick.get_text() for tick in axis.get_ticklabels() if tick.get_visible()]
            if axis.get_visible() and any(map(_is_number, shown)) and not axis.get_label_text().strip():
                yield f"the {name} axis of plot {number} shows numbers, but has no label with a unit"


def _is_number(text: str) -> bool:
    plain = text.strip().replace("\N{MINUS SIGN}", "-").replace("$\\mathdefault{", "").replace("}$", "")
    try:
        float(plain)
    except ValueError:
        return plain.startswith("10^{")
    return True


def _texts(figure: Any) -> Iterator[str]:
    from matplotlib.text import Text

    hidden = {
        id(text)
        for axes in figure.axes
        for axis in ((axes.xaxis, axes.yaxis) if not axes.axison else ())
        for text in axis.findobj(Text)
    }
    for text in figure.findobj(Text):
        said = text.get_text().strip()
        if said and text.get_visible() and id(text) not in hidden and text.get_fontsize() < SMALLEST:
            yield f"the text {said[:30]!r} has {text.get_fontsize():g} points: use at least {SMALLEST}"


def _colours(figure: Any, known: Iterable[tuple[float, ...]]) -> Iterator[str]:
    from matplotlib.collections import Collection
    from matplotlib.colors import to_hex, to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    for axes in _drawn(figure):
        parts = [*axes.lines, *axes.patches, *axes.collections]
        for part in parts:
            if not part.get_visible():
                continue
            colours: list[Any] = []
            if isinstance(part, Line2D):
                colours = [part.get_color()]
            elif isinstance(part, Patch):
                colours = [part.get_facecolor(), part.get_edgecolor()]
            elif isinstance(part, Collection) and part.get_array() is None:
                colours = [*part.get_facecolor(), *part.get_edgecolor()]
            for colour in colours:
                if isinstance(colour, str) and colour in _QUIET:
                    continue
                red, green, blue, alpha = to_rgba(colour)
                grey = max(red, green, blue) - min(red, green, blue) < 0.02
                if alpha and not grey and not any(_near((red, green, blue), one) for one in known):
                    yield f"{to_hex(colour)} is not a colour of the palette"


def _near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 0.01 for a, b in zip(one, other, strict=True))
