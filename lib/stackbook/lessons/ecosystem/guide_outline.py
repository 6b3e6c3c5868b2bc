"""The guide's table of contents compared with its ledger: which headings have no content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from stackbook.config.ledger import Entry


@dataclass(frozen=True)
class Section:
    """A heading of the guide."""

    number: str
    title: str


def sections() -> list[Section]:
    """The guide's numbered headings, in their order."""
    text = (files("stackbook.lessons.ecosystem") / "sections.json").read_text(encoding="utf-8")
    return [Section(**row) for row in json.loads(text)]


def leaves(known: Iterable[Section]) -> list[Section]:
    """The headings without subheadings: their text, if any, must be directly below them.

    >>> [s.number for s in leaves([Section("1", ""), Section("1.1", ""), Section("2", "")])]
    ['1.1', '2']
    """
    known = list(known)
    return [s for s in known if not any(other.number.startswith(f"{s.number}.") for other in known)]


def empty(entries: Mapping[str, Entry], *, but: str) -> list[Section]:
    """The headings without subheadings for which the ledger has no command, file or claim.

    Args:
        entries: the ledger.
        but: an entry that only says that a heading is empty; it does not count.
    """
    filled = {entry.chapter for entry in entries.values() if entry.id != but}
    return [section for section in leaves(sections()) if section.number not in filled]
