"""The committed outputs against the live lab: nbval runs every chapter again and compares what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from labtools import ROOT
from stackbook import chapters
from stackbook.chapter import Lab

pytestmark = pytest.mark.live
COMPARED = [c for c in chapters.available() if c.batch]
BESIDE = ("14", "15", "08", "00", "02", "13", "04", "09", "07", "12")
"""Chapters for the second lane, in this order: those that do not disturb the network or the machines, first those that need
no bookinfo. Then both lanes have chapters that do, and wait for their turns."""
FIRST_WITH_BENCH = "06"
"""In the first lane, it sets the bench up by itself, and takes it away; for those after it one is left standing."""


def ordered() -> list[ParameterSet]:
    """The chapters: first those of the first lane, in the order of the guide, then those of the second."""
    first = [pytest.param(c, id=c.id) for c in COMPARED if c.number not in BESIDE]
    second = sorted((c for c in COMPARED if c.number in BESIDE), key=lambda c: BESIDE.index(c.number))
    return first + [pytest.param(c, id=c.id, marks=pytest.mark.beside) for c in second]


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """Run nbval over one notebook; it stops at the first cell that differs."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "nbval.plugin", "-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", "--nbval",
         "--nbval-current-env", "--nbval-cell-timeout", "600", "--nbval-sanitize-with", "tests/sanitize.cfg", str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # the other plugins take a second to load
    )  # fmt: skip


@pytest.mark.parametrize("chapter", ordered())
def test_a_chapter_prints_what_is_committed(
    lab: Lab, chapter: chapters.Chapter, request: pytest.FixtureRequest
) -> None:
    if chapter.number not in BESIDE and chapter.number > FIRST_WITH_BENCH:
        request.getfixturevalue("standing_bench")
    done = nbval(chapter.notebook)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_wrong_output_in_a_chapter_fails(lab: Lab, tmp_path: Path) -> None:
    """In a copy of the first chapter with outputs, one compared table is changed by one character."""
    book = json.loads(COMPARED[0].notebook.read_text())
    changed = False
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and "nbval-ignore-output" not in cell["metadata"].get("tags", []):
            for output in cell["outputs"]:
                if "data" in output and not changed:
                    text = "".join(output["data"]["text/plain"])
                    output["data"]["text/plain"] = [text.replace("root", "r00t", 1)]
                    changed = "root" in text
    assert changed
    path = tmp_path / "wrong.ipynb"
    path.write_text(json.dumps(book))
    assert nbval(path).returncode == 1
