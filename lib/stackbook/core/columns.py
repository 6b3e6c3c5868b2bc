"""Text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, with columns of equal width, two blanks between them, and none at the end.

    >>> aligned([("NAME", "AGE"), ("a-long-name", "")])
    ['NAME         AGE', 'a-long-name']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
