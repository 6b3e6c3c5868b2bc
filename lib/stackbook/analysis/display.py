"""Tables and plots on a page: the same on every run, and readable for everybody."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stackbook.analysis import plot_lint

if TYPE_CHECKING:
    import pandas as pd

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart. https://jfly.uni-koeln.de/color/
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

FOLDED = "font-size:12px;max-height:30em;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere"
"""CSS of a long text that a reader unfolds: it scrolls, and its lines are broken."""


def style_plots() -> None:
    """Set up plots for a projector: text of at least 12 points, the palette above, a light grid."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.use("agg", force=False)
    mpl.rcParams.update(
        {
            "figure.figsize": (9, 4.5),
            "figure.dpi": 100,
            "savefig.bbox": "tight",
            "font.size": 12,
            "axes.titlesize": 14,
            "axes.labelsize": 12,
            "xtick.labelsize": 12,
            "ytick.labelsize": 12,
            "legend.fontsize": 12,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=list(PALETTE)),
        }
    )


def table(rows: pd.DataFrame | Iterable[Mapping[str, Any]], caption: str = "") -> pd.DataFrame:
    """Show rows as a table without an index, and return them as a DataFrame."""
    import pandas as pd
    from IPython.display import display

    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    display(Table(frame, caption))  # type: ignore[no-untyped-call]
    return frame


class Table:
    """A DataFrame for the page: text left, numbers right, long lines wrapped, no index."""

    def __init__(self, frame: pd.DataFrame, caption: str = "") -> None:
        self.frame, self.caption = frame, caption

    def _repr_html_(self) -> str:
        import pandas as pd

        cell = "padding:0.25em 0.8em;vertical-align:top;white-space:pre-wrap;overflow-wrap:break-word;"
        numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in self.frame.dtypes]
        align = ["text-align:right" if number else "text-align:left" for number in numeric]
        head = "".join(
            f'<th scope="col" style="{cell}{a}">{html.escape(str(c))}</th>'
            for c, a in zip(self.frame.columns, align, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{cell}{a}">{_cell(v)}</td>' for v, a in zip(row, align, strict=True))
            + "</tr>"
            for row in self.frame.itertuples(index=False)
        )
        caption = (
            f'<caption style="text-align:left;font-weight:bold;padding:0.3em 0">{html.escape(self.caption)}</caption>'
        )
        return (
            f'<table style="font-size:14px;border-collapse:collapse">{caption if self.caption else ""}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def __repr__(self) -> str:
        text = self.frame.to_string(index=False, max_colwidth=80) if len(self.frame) else "(no rows)"
        return f"{self.caption}\n{text}" if self.caption else text


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))


def figure(fig: Any, alt: str) -> None:
    """Show a matplotlib figure as a picture with an alternative text.

    Raises:
        ValueError: the text is empty, or the plot is hard to read; see `plot_lint.problems`.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image, display

    if not alt.strip():
        raise ValueError("the figure has no alternative text: say what it shows")
    if hard := plot_lint.problems(fig, PALETTE):
        raise ValueError(f"the plot is hard to read: {'; '.join(hard)}")
    data = io.BytesIO()
    fig.savefig(data, format="png")
    plt.close(fig)
    display(Image(data=data.getvalue(), format="png", alt=alt))  # type: ignore[no-untyped-call]


def page(text: str, *, height: int = 420, title: str = "") -> None:
    """Show an HTML page in a sandboxed frame, without scripts."""
    from IPython.display import display

    display(_Page(text, height, title))  # type: ignore[no-untyped-call]


class _Page:
    """An HTML page for the notebook, in a frame."""

    def __init__(self, text: str, height: int, title: str) -> None:
        self.text, self.height, self.title = text, height, title

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox srcdoc="{html.escape(self.text)}" '
            f'style="width:100%;height:{self.height}px;border:1px solid #999"></iframe>'
        )

    def __repr__(self) -> str:
        return f"{self.title} ({len(self.text)} characters of HTML)"
