"""A file of the guide beside its current version, as a diff on the page."""

from __future__ import annotations

import difflib
import html
from collections.abc import Mapping

from stackbook.analysis.display import FOLDED

_COLOURS = {"-": "#ffd7d5", "+": "#ccffd8"}
"""Backgrounds of lines that only the guide or only today's file has; the sign before each line says the same."""


class FileDiff:
    """One file: all its lines, `-` before those that only the guide's file has, and `+` before those that only today's has.

    Args:
        name: of the file.
        guide: its text in the guide, as printed.
        today: its text today.
    """

    def __init__(self, name: str, guide: str, today: str) -> None:
        self.name = name
        old, new = guide.rstrip("\n").split("\n"), today.rstrip("\n").split("\n")
        self.lines = [line for line in difflib.ndiff(old, new) if not line.startswith("?")]

    @property
    def summary(self) -> str:
        r"""The file's name, and how many lines are only on one side.

        >>> FileDiff("a.yaml", "kind: A\n", "kind: A\n").summary, FileDiff("a.yaml", "a\nb\n", "a\nc\n").summary
        ('a.yaml: still as the guide has it', 'a.yaml: - 1 of the guide, + 1 of today')
        """
        gone, new = (sum(line.startswith(sign) for line in self.lines) for sign in _COLOURS)
        return (
            f"{self.name}: - {gone} of the guide, + {new} of today"
            if gone or new
            else f"{self.name}: still as the guide has it"
        )

    def __repr__(self) -> str:
        return "\n".join([self.summary, *self.lines])

    def _repr_html_(self) -> str:
        """The file's name, which unfolds to the diff."""
        lines = "".join(_line(f"{line}\n") for line in self.lines)
        summary = html.escape(self.summary)
        return f'<details class="guide-file"><summary>{summary}</summary><pre style="{FOLDED}">{lines}</pre></details>'


def _line(line: str) -> str:
    colour = _COLOURS.get(line[:1])
    text = html.escape(line)
    return f'<span style="background:{colour};color:#000">{text}</span>' if colour else text


def show(files: Mapping[str, tuple[str, str]]) -> None:
    """Show files, each as the guide prints it and as it is today: name → both texts."""
    from IPython.display import display

    for name, (guide, today) in files.items():
        display(FileDiff(name, guide, today))  # type: ignore[no-untyped-call]
