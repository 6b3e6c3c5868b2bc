"""The Chinese edition follows the English one: the same code cells and outputs, its own prose.

    python tools/editions.py                 copy code cells and outputs into notebooks/zh; lists the prose to check
    python tools/editions.py --texts FOLDER  take prose from FOLDER/NN-name.json, {cell id: text}, as translations of the current text
    python tools/editions.py --looked-at NN  the prose of a chapter was checked against the current English text

Each cell of prose has the digest of the English cell that it translates. If that cell has changed since, the tests fail until
somebody has checked the translation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "notebooks", ROOT / "notebooks" / "zh"
KEY = "translates"
"""In a cell's metadata: the digest of the English text."""


def digest(text: str) -> str:
    """A short checksum of an English text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    book: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return book


def write(path: Path, book: dict[str, Any]) -> None:
    """Write a notebook in the same form as the others."""
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def translated(english: dict[str, Any], chinese: dict[str, Any] | None, texts: dict[str, str]) -> dict[str, Any]:
    """The Chinese edition of a chapter.

    Args:
        english: the chapter.
        chinese: its existing translation.
        texts: new translations of the current text, by cell id.

    Raises:
        KeyError: a cell has no translation.
    """
    known = {cell["id"]: cell for cell in (chinese or {"cells": []})["cells"]}
    cells = []
    for cell in english["cells"]:
        if cell["cell_type"] != "markdown":
            cells.append(cell)
            continue
        if cell["id"] in texts:
            text, of = texts[cell["id"]], digest(source(cell))
        else:
            text, of = source(known[cell["id"]]), known[cell["id"]]["metadata"][KEY]
        cells.append({**cell, "metadata": {**cell["metadata"], KEY: of}, "source": text.splitlines(keepends=True)})
    return {**english, "cells": cells}


def outdated(english: dict[str, Any], chinese: dict[str, Any]) -> Iterator[str]:
    """The ids of cells whose English text has changed since it was translated, or that have no translation."""
    known = {cell["id"]: cell for cell in chinese["cells"]}
    for cell in english["cells"]:
        if cell["cell_type"] == "markdown":
            mine = known.get(cell["id"])
            if mine is None or mine["metadata"].get(KEY) != digest(source(cell)):
                yield str(cell["id"])


def main() -> int:
    """Update the Chinese edition; returns 1 if there is prose to check."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--texts", type=Path, metavar="FOLDER")
    parser.add_argument("--looked-at", action="append", default=[], metavar="NN")
    options = parser.parse_args()
    CHINESE.mkdir(exist_ok=True)
    left = 0
    for path in sorted(ENGLISH.glob("[0-9][0-9]-*.ipynb")):
        english, target = read(path), CHINESE / path.name
        chinese = read(target) if target.exists() else None
        given = options.texts / f"{path.stem}.json" if options.texts else None
        texts = json.loads(given.read_text(encoding="utf-8")) if given and given.exists() else {}
        if path.stem[:2] in options.looked_at and chinese:
            texts = {cell["id"]: source(cell) for cell in chinese["cells"] if cell["cell_type"] == "markdown"}
        try:
            book = translated(english, chinese, texts)
        except KeyError as missing:
            print(f"{path.stem}: cell {missing} has no translation: add it to a file for --texts")
            left += 1
            continue
        write(target, book)
        for cell in outdated(english, book):
            print(f"{path.stem}: the English text of cell {cell!r} has changed: check notebooks/zh/{path.name}")
            left += 1
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
