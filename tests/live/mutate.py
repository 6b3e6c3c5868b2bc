"""Copies of a chapter with one thing changed in what it does, never in what it expects."""

from __future__ import annotations

import ast
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
_STEP, _CLAIMS = re.compile(r'lab\.step\(\s*"([a-z0-9-]+)"'), re.compile(r'lab\.claims\("([a-z0-9-]+)"')
_SHOWS = ("lab.show", "lab.figure", "print")


def cells_of(chapter: str) -> list[tuple[str, list[str]]]:
    """Source and tags of each code cell of a chapter."""
    cells = json.loads((paths.notebooks() / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [("".join(c["source"]), c["metadata"].get("tags", [])) for c in cells if c["cell_type"] == "code"]


def about(source: str) -> set[str]:
    """The ids of the steps that a cell runs, or whose claims it checks."""
    return {*_STEP.findall(source), *_CLAIMS.findall(source)}


def without_shows(source: str) -> str:
    """A cell without what only shows something: what is broken on purpose need not be fit to be shown."""
    dropped: set[int] = set()
    todo: list[ast.stmt] = list(ast.parse(source).body)
    for statement in todo:
        if isinstance(statement, ast.If) and any(isinstance(one, ast.With) for one in statement.body):
            todo += statement.body
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) in _SHOWS:
            dropped |= set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return "\n".join(line for number, line in enumerate(source.splitlines(), 1) if number not in dropped)


def by_step(chapter: str) -> dict[str, str]:
    """The code of each step by its id, followed by that of its claims; and the cells `parameters` and `bind`."""
    found: dict[str, str] = {}
    for source, tags in cells_of(chapter):
        names = ["parameters"] if "parameters" in tags else ["bind"] if "bind(" in source else []
        for name in (*names, *sorted(about(source))):
            found[name] = f"{found[name]}\n{source}" if name in found else without_shows(source)
    return found


def copy(
    chapter: str,
    *steps: str,
    changes: dict[str, str] | None = None,
    leave: str = "lab.leave(scope)",
    bench: bool = True,
    proved: bool = False,
) -> nbformat.NotebookNode:
    """The chapter's cells without a step, and those of the named steps and their claims up to the last of them, with each change
    made exactly once.

    Where the preconditions were `proved` before, they are left out. Without `bench` they are, too, and no bench is set up: who
    runs it gives it one as `testbed`.
    """
    wanted = {*steps, *(["bench"] if bench else [])}
    proof = "lab.preconditions()" if proved or not bench else "\0"
    cells = cells_of(chapter)
    run = {step for source, _ in cells for step in _STEP.findall(source)}
    assert set(steps) <= run, f"{chapter} has no step {set(steps) - run}"
    last = max(number for number, (source, _) in enumerate(cells) if about(source) & set(steps))
    kept = []
    for source, tags in cells[: last + 1]:
        found = about(source)
        shows = not found and ("nbval-ignore-output" in tags or re.match(r"lab\.(show|figure|errata)\(", source))
        if not shows and found <= wanted:
            code = without_shows(source) if found else source
            kept.append("\n".join(line for line in code.splitlines() if line != proof))
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
