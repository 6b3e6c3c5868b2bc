"""Figures in the README: each benchmark has its own block there, between two marks."""

from __future__ import annotations

from stackbook.core import paths
from stackbook.core.errors import InputError


def put(name: str, text: str) -> None:
    """Replace the text between the marks of this name.

    Raises:
        InputError: the README has no such marks; nothing was changed.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    readme = paths.checkout() / "README.md"
    head, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise InputError(
            f"README.md has no place for the figures of {name}", fix=f"write {begin} and {end} where they go"
        )
    readme.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
