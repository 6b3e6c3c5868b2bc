"""Which cell shows or proves which entry of the ledger.

A cell's metadata says so; if `how` differs between the ids, it has a list of these:

    "stackbook": {"ids": ["K98", "F23"], "how": "live"}
    "stackbook": {"ids": ["C62"], "how": "cannot", "why": "the installer runs on Windows only"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stackbook.config.ledger.entries import Entry, load
from stackbook.core.errors import InputError

HOW: Mapping[str, str] = {
    "live": "proved live",
    "offline": "proved offline",
    "shown": "shown with its correction",
    "cannot": "cannot run here",
}
"""The ways to cover an entry, the strongest first."""


@dataclass(frozen=True)
class Proof:
    """One cell that covers one entry; `cell` counts from 1, `section` is the heading above it."""

    id: str
    notebook: str
    cell: int
    section: str
    how: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.notebook}, cell {self.cell}, {HOW[self.how]}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True)
class Coverage:
    """The ledger and its proofs, the strongest proof of an entry first."""

    entries: Mapping[str, Entry]
    proofs: Mapping[str, tuple[Proof, ...]]

    @property
    def missing(self) -> list[str]:
        """The ids that no cell covers."""
        return [id for id in self.entries if not self.proofs.get(id)]

    @property
    def complete(self) -> bool:
        """Whether each id is covered."""
        return not self.missing

    def rows(self) -> list[dict[str, Any]]:
        """One line for each proof, and one for each id without any; in the ledger's order."""
        found: list[dict[str, Any]] = []
        for id, entry in self.entries.items():
            base = {"id": id, "guide": entry.chapter, "verdict": entry.verdict}
            for proof in self.proofs.get(id, ()):
                found.append({**base, **{k: v for k, v in asdict(proof).items() if k != "id"}})
            if not self.proofs.get(id):
                found.append({**base, "notebook": "", "cell": 0, "section": "", "how": "missing", "why": ""})
        return found


def coverage(notebooks: Path, entries: Mapping[str, Entry] | None = None) -> Coverage:
    """Read the metadata of every notebook of a folder.

    Raises:
        InputError: a notebook cannot be read, or a cell's metadata does not have the form above.
    """
    known = load() if entries is None else entries
    found: dict[str, list[Proof]] = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        for proof in _proofs(path, known):
            found.setdefault(proof.id, []).append(proof)
    order = list(HOW)
    ranked = {id: tuple(sorted(p, key=lambda p: (order.index(p.how), p.notebook, p.cell))) for id, p in found.items()}
    return Coverage(known, ranked)


def _proofs(path: Path, known: Mapping[str, Entry]) -> Iterator[Proof]:
    """The proofs of one notebook."""
    section = path.stem
    for number, cell in enumerate(_cells(path), 1):
        where = f"{path.name}, cell {number}"
        kind, source = cell.get("cell_type"), cell.get("source", "")
        text = source if isinstance(source, str) else "".join(map(str, source))
        if kind == "markdown":
            headings = [line.lstrip("#").strip() for line in text.splitlines() if line.startswith("#")]
            section = headings[-1] if headings else section
        metadata = cell.get("metadata")
        said = metadata.get("stackbook") if isinstance(metadata, dict) else None
        for item in said if isinstance(said, list) else [] if said is None else [said]:
            ids, how, why = _checked(item, where, kind, known)
            for id in ids:
                yield Proof(id, path.name, number, section, how, why)


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path.name} is not a notebook: {error}", fix="restore it from git") from error
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InputError(
            f"{path.name} is not a notebook: its `cells` is not a list of cells", fix="restore it from git"
        )
    return cells


def _checked(item: Any, where: str, kind: Any, known: Mapping[str, Entry]) -> tuple[list[str], str, str]:
    """`ids`, `how` and `why` of one piece of metadata."""
    form = 'write {"ids": ["K01"], "how": "live"}'
    if not isinstance(item, dict) or not set(item) <= {"ids", "how", "why"} or not {"ids", "how"} <= set(item):
        raise InputError(f"{where}: the metadata stackbook is {item!r}", fix=form)
    ids, how, why = item["ids"], item["how"], item.get("why", "")
    if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
        raise InputError(f"{where}: ids is {ids!r}", fix=form)
    if unknown := [id for id in ids if id not in known]:
        raise InputError(f"{where}: the ledger has no {', '.join(unknown)}", fix="`stackbook coverage` lists the ids")
    if not isinstance(how, str) or how not in HOW:
        raise InputError(f"{where}: how is {how!r}", fix="write one of " + ", ".join(HOW))
    if not isinstance(why, str) or (how == "cannot" and not why.strip()):
        raise InputError(f"{where}: how is 'cannot', but the reason is missing", fix='add "why"')
    if how in ("live", "offline") and kind != "code":
        raise InputError(
            f"{where}: a text cell cannot prove anything", fix='move the ids to the code cell, or write "how": "shown"'
        )
    return ids, how, why.strip()


def report(covered: Coverage, *, as_json: bool = False) -> str:
    """What `stackbook coverage` prints: a line for each proof, then the counts and what is missing."""
    counts = {how: sum(p[0].how == how for p in covered.proofs.values() if p) for how in HOW}
    total, missing = len(covered.entries), covered.missing
    if as_json:
        head = {"total": total, "covered": total - len(missing), "by": counts, "missing": missing}
        return json.dumps({**head, "entries": covered.rows()}, ensure_ascii=False, indent=2)
    lines = []
    for row in covered.rows():
        place = f"{row['notebook']}:{row['cell']}" if row["notebook"] else "–"
        lines.append(
            f"{row['id']:5} {row['guide']:8} {row['verdict']:9} {row['how']:8} {place:24} {row['why']}".rstrip()
        )
    lines.append(
        f"{total - len(missing)} of {total} covered: " + ", ".join(f"{n} {HOW[how]}" for how, n in counts.items())
    )
    if missing:
        lines.append("missing: " + " ".join(missing))
    return "\n".join(lines)
