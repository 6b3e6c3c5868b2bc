"""The committed outputs against the live lab: nbval runs every chapter again and compares what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from labtools import ROOT
from stackbook import chapters
from stackbook.chapter import Lab

pytestmark = pytest.mark.live
COMPARED = [c for c in chapters.available() if c.batch]
QUIET = [c for c in COMPARED if c.number in ("00", "02", "04", "08", "13", "14", "15")]
ALONE = [c for c in COMPARED if c not in QUIET]


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """Run nbval over one notebook; it stops at the first cell that differs."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", "--nbval",
         "--nbval-current-env", "--nbval-cell-timeout", "600", "--nbval-sanitize-with", "tests/sanitize.cfg", str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


class Beside:
    """Chapters that neither send through the mesh nor disturb the lab, compared one by one while another one waits."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._results: dict[str, Future[subprocess.CompletedProcess[str]]] = {}

    def start(self) -> None:
        """Begin, unless it has begun."""
        for chapter in QUIET if not self._results else ():
            self._results[chapter.id] = self._pool.submit(nbval, chapter.notebook)

    def result(self, chapter: chapters.Chapter) -> subprocess.CompletedProcess[str]:
        """What came of one of them."""
        self.start()
        return self._results[chapter.id].result()

    def end(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def beside() -> Iterator[Beside]:
    runs = Beside()
    yield runs
    runs.end()


@pytest.mark.parametrize("chapter", [pytest.param(c, id=c.id) for c in [*ALONE, *QUIET]])
def test_a_chapter_prints_what_is_committed(lab: Lab, beside: Beside, chapter: chapters.Chapter) -> None:
    if chapter.id == "12-logs":
        beside.start()
    done = beside.result(chapter) if chapter in QUIET else nbval(chapter.notebook)
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
