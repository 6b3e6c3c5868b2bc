"""The ledger's entries, read from ledger.csv beside this file."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, fields
from importlib.resources import files

from stackbook.core.errors import InputError

CHOICES = {
    "kind": ("command", "file", "claim"),
    "executable": ("yes", "no", "needs-internet", "gui", "windows-only"),
    "verdict": ("ok", "outdated", "wrong", "unclear"),
}
_LETTER = {"command": "C", "file": "F", "claim": "K"}


@dataclass(frozen=True)
class Entry:
    """One command, file or claim of the guide.

    `chapter` is the guide's number (2.2.3.2), `text` what the guide says, `correction` what is right today, `how_to_check`
    how that is proved. Wrong and outdated entries always have a correction.
    """

    id: str
    chapter: str
    kind: str
    text: str
    executable: str
    verdict: str
    correction: str
    how_to_check: str

    @property
    def needs_correction(self) -> bool:
        """Whether the guide misleads a reader here."""
        return self.verdict in ("wrong", "outdated")


def load() -> dict[str, Entry]:
    """The entries by id, in the guide's order."""
    return parse((files("stackbook.config.ledger") / "ledger.csv").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Entry]:
    """The entries of a ledger in CSV, by id.

    Raises:
        InputError: a line does not have the ledger's form; the error names the line and what is wrong with it.
    """
    names = [field.name for field in fields(Entry)]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, Entry] = {}
    try:
        if next(reader, None) != names:
            raise InputError("the header of the ledger is wrong", fix="change its first line to " + ",".join(names))
        for row in reader:
            entry = _entry(row, reader.line_num, names)
            if entry.id in found:
                raise InputError(f"ledger line {reader.line_num}: {entry.id} appears twice", fix="give it a new number")
            found[entry.id] = entry
    except csv.Error as error:
        raise InputError(
            f"ledger line {reader.line_num}: {error}", fix="quote the line as in RFC 4180 (CSV)"
        ) from error
    if not found:
        raise InputError("the ledger has no entries", fix="restore ledger.csv")
    return found


def _entry(row: list[str], line: int, names: list[str]) -> Entry:
    """One checked entry."""
    if len(row) != len(names):
        raise InputError(f"ledger line {line} has {len(row)} fields", fix=f"write {len(names)}: {','.join(names)}")
    entry = Entry(*(value.strip() for value in row))
    where = f"ledger line {line}, {entry.id!r}"
    for name, allowed in CHOICES.items():
        if getattr(entry, name) not in allowed:
            raise InputError(f"{where}: {name} is {getattr(entry, name)!r}", fix="write one of " + ", ".join(allowed))
    if not re.fullmatch(rf"{_LETTER[entry.kind]}[0-9]{{2,3}}", entry.id, re.ASCII):
        raise InputError(
            f"{where} is not an id of a {entry.kind}", fix=f"write {_LETTER[entry.kind]} and two or three digits"
        )
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", entry.chapter, re.ASCII):
        raise InputError(f"{where}: chapter is {entry.chapter!r}", fix="write the guide's number, like 2.2.3.2")
    for name in ("text", "how_to_check", *(["correction"] if entry.needs_correction else [])):
        if not getattr(entry, name):
            raise InputError(f"{where}: {name} is empty", fix=f"fill it in, because the verdict is {entry.verdict}")
    return entry
