"""Write the section "Challenges" of each chapter from the challenges themselves: python tools/challenges.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stackbook.core import paths
from stackbook.lessons import challenges

ID = "challenges"
"""The id of the cell with the section."""


def section(chapter: str) -> str:
    """The text of a chapter's cell; empty if the chapter has no challenges."""
    found = challenges.of(chapter)
    if not found:
        return ""
    first = found[0].id
    parts = [
        "## Challenges\n\n"
        "Each challenge breaks one thing of the lab, or sets a goal. Begin one in a new cell, or in a terminal. The lab is given back as\n"
        "it was when you end it, and also when another challenge, `stackbook run` or `stackbook reset` begins. Files that belong to a\n"
        "challenge are in the folder that it names.\n\n"
        "```python\n"
        f'challenge = lab.challenge("{first}")  # begins it, or goes on with it\n'
        "challenge.verify()                 # what holds, and what does not\n"
        "challenge.hint()                   # in three steps; then challenge.solution()\n"
        "challenge.end()                    # gives the lab back\n"
        "```\n\n"
        f"In a terminal: `stackbook challenge start {first}`, then `verify`, `hint`, `solution` and `end`."
    ]
    parts += [f"### {one.id} · {one.title}\n\n{one.situation}\n\n**Goal:** {one.goal}" for one in found]
    return "\n\n".join(parts)


def with_section(book: dict[str, Any], text: str) -> dict[str, Any]:
    """A notebook with the section before its last cell, which leads to the next chapter."""
    cells = [cell for cell in book["cells"] if cell.get("id") != ID]
    own = {"cell_type": "markdown", "id": ID, "metadata": {}, "source": text.splitlines(keepends=True)}
    return {**book, "cells": [*cells[:-1], own, cells[-1]] if text else cells}


def main() -> int:
    """Update the section in each notebook whose section differs."""
    for path in sorted(Path(paths.notebooks()).glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        book = with_section(json.loads(before), section(path.stem))
        after = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
