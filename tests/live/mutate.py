"""Copies of a chapter with one thing changed in what it does, never in what it expects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nbformat
from nbclient import NotebookClient
from stackbook.core import paths
from stackbook.lab.lab import Lab

SEPARATOR = "\n# next cell\n"


def copy(
    chapter: str,
    *steps: str,
    changes: dict[str, str] | None = None,
    leave: str = "lab.leave(scope)",
    bench: bool = True,
    proved: bool = False,
) -> nbformat.NotebookNode:
    """The chapter's cells without a step, and those of the named steps up to the last of them, with each change made exactly once.

    Where the preconditions were `proved` before, they are left out. Without `bench` they are, too, and no bench is set up: who
    runs it gives it one as `testbed`.
    """
    kept = []
    proof = "lab.preconditions()" if proved or not bench else "\0"
    waiting = set(steps)
    for cell in json.loads((paths.notebooks() / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        found = re.findall(r'lab\.step\(\s*"([a-z0-9-]+)"', source)
        volatile = "nbval-ignore-output" in cell["metadata"].get("tags", [])
        shows = not found and (volatile or re.match(r"lab\.(show|figure|errata)\(", source))
        if cell["cell_type"] == "code" and not shows and set(found) <= {*steps, *(["bench"] if bench else [])}:
            kept.append("\n".join(line for line in source.splitlines() if line != proof))
        waiting -= set(found)
        if not waiting:
            break
    assert not waiting, f"{chapter} has no step {waiting}"
    text = SEPARATOR.join(kept)
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the cells of {chapter}"
        text = text.replace(old, new)
    sources = [*text.split(SEPARATOR), *([leave] if leave else [])]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def run(book: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in a kernel of its own; when that ends, what the chapter made is taken away."""
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()


def run_here(book: nbformat.NotebookNode, **given: Any) -> dict[str, Any]:
    """Run it in this process, which spares a kernel's start; what the chapter made is taken away in any case.

    Args:
        book: the cells.
        given: names that they find.

    Raises:
        Exception: that of the first cell that fails, as it is.
    """
    matplotlib.use("Agg")
    names: dict[str, Any] = dict(given)
    try:
        for number, cell in enumerate(book.cells):
            exec(compile(cell.source, f"<cell {number}>", "exec"), names)
    finally:
        lab = names.get("lab")
        if isinstance(lab, Lab) and "scope" in names:
            lab.leave(names["scope"])
        plt.close("all")
    return names
