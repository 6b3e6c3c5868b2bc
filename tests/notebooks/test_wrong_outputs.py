"""One letter wrong in any output of any chapter, and nbval fails: tried on copies, with the committed outputs in place of a lab."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_rules import Notebook, is_compared
from stackbook.core import paths

pytestmark = pytest.mark.slow

BOOKS = sorted(paths.notebooks().glob("*.ipynb"))
SANITIZE = Path(__file__).parents[1] / "sanitize.cfg"


def altered(text: str) -> str:
    """The last word of letters only, with its case turned round: never what may differ from run to run."""
    words = list(re.finditer(r"(?<![\w-])[^\W\d_]{2,}(?![\w-])", text)) or list(re.finditer(r"[^\W\d_]+|\S", text))
    last = words[-1]
    wrong = last[0].swapcase() if last[0].swapcase() != last[0] else f"{last[0]}x"
    return text[: last.start()] + wrong + text[last.end() :]


def spoil(cell: Any) -> None:
    """Change one letter of the last output of a cell that is no picture."""
    output = [o for o in cell.outputs if not any(kind.startswith("image/") for kind in o.get("data", {}))][-1]
    if output.output_type == "stream":
        output.text = altered(output.text)
    else:
        kind = "text/html" if "text/html" in output.data else "text/plain"
        if kind == "text/html":  # a value in the table, not the name of a style
            head, tag, tail = output.data[kind].rpartition("</td>")
            output.data[kind] = altered(head) + tag + tail if tag else altered(output.data[kind])
        else:
            output.data[kind] = altered(output.data[kind])


def lay(folder: Path, recorded: Any, compared_with: Any, name: str) -> None:
    """A folder for nbval: the notebook that it reads, and the outputs that replay.py gives."""
    folder.mkdir(parents=True)
    nbformat.write(recorded, folder / "recorded.ipynb")
    nbformat.write(compared_with, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str]]:
    """What nbval says of each code cell, by `right/<chapter>` and `wrong/<chapter>`; cells count from 0."""
    root = tmp_path_factory.mktemp("replayed")
    for path in BOOKS:
        book = nbformat.read(path, as_version=4)
        wrong = copy.deepcopy(book)
        for cell in wrong.cells:
            if cell.cell_type == "code" and cell.outputs and is_compared(cell):
                spoil(cell)
        lay(root / "right" / path.stem, book, book, path.stem)
        lay(root / "wrong" / path.stem, book, wrong, path.stem)
    files = [str(folder / f"{folder.name}.ipynb") for side in ("right", "wrong") for folder in (root / side).iterdir()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "replay", "-p", "nbval.plugin", "-v", "--color=no", "--tb=no", "-p", "no:cacheprovider",
         "-o", "addopts=", "--rootdir", str(root), "--nbval", "--nbval-current-env",
         "--nbval-sanitize-with", str(SANITIZE), *files],
        cwd=root, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, dict[int, str]] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"((?:right|wrong)/[\w-]+)/[\w-]+::ipynb::Cell (\d+) (PASSED|FAILED)", line):
            found.setdefault(match[1], {})[int(match[2])] = match[3]
    return found


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_one_wrong_letter_in_any_compared_cell_fails(verdicts: dict[str, dict[int, str]], path: Path) -> None:
    """As it is committed, each cell passes; with a letter wrong, just those fail in which it is."""
    cells = [cell for _, _, cell in Notebook(path).of("code")]
    compared = {n for n, cell in enumerate(cells) if cell["outputs"] and is_compared(cell)}
    assert verdicts[f"right/{path.stem}"] == dict.fromkeys(range(len(cells)), "PASSED")
    expected = {n: "FAILED" if n in compared else "PASSED" for n in range(len(cells))}
    assert verdicts[f"wrong/{path.stem}"] == expected
    assert compared
