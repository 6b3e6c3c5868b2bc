"""The committed outputs against the live lab, compared by nbval.

The chapters of a new lab's first run are compared as that run has printed them; nbval executes the others itself, and on a lab that
was there before it executes all.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from _pytest.mark import ParameterSet
from labtools import ROOT, Built
from stackbook.app import proving, session
from stackbook.config import chapters
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.lessons.delivery import drone

pytestmark = pytest.mark.live
COMPARED = [c for c in chapters.available() if c.batch]
LANES = {
    1: ("10", "11", "12", "16", "06", "15", "08"),
    2: ("14", "13", "09", "07"),
    3: ("05", "02", "03", "04", "01", "00"),
}
"""The chapters in the order of each lane. The lanes run side by side, and what needs bookinfo waits for its turn in each.

The second lane begins with those that need little of it, so neither waits long for the other. 12 and 16 need what 10 and 11 leave.
The third has those of a lab's first run, which `tools/test.sh` runs with lower priority.
"""
QUIET = ("08",)
"""It measures this host's speed: it begins when nobody else measures."""
WITH_BENCH = ("07", "10", "11")
"""These find a bench, and leave it, in any lane: so its pods stay until the last chapter; 06 sets it up by itself."""
KEPT = ("-p", "kept_outputs", "-p", "nbval.plugin")
STOOD_ON = ("10", "11")
"""12 and 16 stand on what these leave on a new lab."""
FIRST_RUN = ("00", "01", "02", "03", "04", "05")
"""The chapters of the run that makes the lab."""
EXECUTED_AGAIN = ("02",)
"""Of those, what is executed again on a new lab, too: it is to change nothing. `make test-more` executes them all again."""


def ordered() -> list[ParameterSet]:
    """The chapters lane by lane, as they are marked for `tools/test.sh`."""
    numbers = [number for lane in LANES.values() for number in lane]
    assert sorted(numbers) == [c.number for c in COMPARED], "each chapter is in one lane"
    by_number = {c.number: c for c in COMPARED}
    return [
        pytest.param(by_number[number], id=by_number[number].id, marks=[pytest.mark.lane(number=lane), *again(number)])
        for lane, numbers in LANES.items()
        for number in numbers
    ]


def again(number: str) -> list[pytest.MarkDecorator]:
    """How a chapter is marked that the first run of a new lab has executed already."""
    new = os.environ.get("STACKBOOK_LAB_WAS_THERE") != "1"
    return [pytest.mark.more] if new and number in FIRST_RUN and number not in EXECUTED_AGAIN else []


def nbval(path: Path, outputs: Path, *plugins: str) -> subprocess.CompletedProcess[str]:
    """Run nbval over one notebook; it stops at the first cell that differs. What the cells print is kept in `outputs`.

    Kernels that start in two lanes at the same moment may pick the same port: one that has not even answered is started again.
    """
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, "-q", "-x", "-p", "no:cacheprovider",
             "-o", "addopts=", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600",
             "--nbval-sanitize-with", "tests/sanitize.cfg", str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
            env=os.environ | {
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the other plugins take a second to load
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests/notebooks")]),
                "STACKBOOK_KEPT_OUTPUTS": str(outputs),
            },
        )  # fmt: skip
        if "Kernel died before replying to kernel_info" not in done.stdout:
            break
    return done


@pytest.mark.parametrize("chapter", ordered())
def test_a_chapter_prints_what_is_committed(
    lab: Lab, chapter: chapters.Chapter, left_behind: Path, request: pytest.FixtureRequest
) -> None:
    if chapter.number in WITH_BENCH:
        request.getfixturevalue("standing_bench")
    if chapter.number in QUIET:
        with lab.turn("nothing else is measured"):
            pass
    if any(needed.startswith(STOOD_ON) for needed in chapter.needs):

        def proved() -> bool:
            session.opened(chapter.id).preconditions()
            return True

        until(
            proved, what=f"what {chapter.id} needs is there", timeout=400,
            every=5, tolerate=(StackbookError,),
        )  # fmt: skip
    # Executed before on this very lab, as it stands in the notebook? Then it is to change nothing.
    before = chapter.leaves == "nothing" or proving.proved(lab.profile, chapter, {})
    changed = executed(chapter, left_behind)
    assert not changed or not before, f"executed again, it has changed something: {changed}"


def replayed(executed: Path, committed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let nbval compare a notebook that papermill has executed with the committed one (`tests/notebooks/replay.py`)."""
    folder.mkdir()
    recorded = nbformat.read(executed, as_version=4)
    recorded.cells = [c for c in recorded.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    nbformat.write(recorded, folder / "recorded.ipynb")
    (folder / committed.name).write_bytes(committed.read_bytes())
    return nbval(folder / committed.name, folder, "-p", "nbval.plugin", "-p", "replay")


@pytest.mark.lane(number=3)
@pytest.mark.parametrize("number", FIRST_RUN)
def test_the_first_run_printed_what_is_committed(built: Built, tmp_path: Path, number: str) -> None:
    """As a newcomer's first command has executed it, on a lab that was not there before; with one letter wrong, nbval fails."""
    if built.first is None:
        pytest.skip("the lab was there before the session: its chapters are executed again")
    report = re.search(r"^report: +(\S+)$", built.first.output, re.MULTILINE)
    assert report, built.first.output[-2000:]
    chapter = next(c for c in COMPARED if c.number == number)
    executed = Path(report[1]).parent / chapter.notebook.name
    done = replayed(executed, chapter.notebook, tmp_path / "right")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    wrong = tmp_path / chapter.notebook.name
    book = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    change_a_letter(book)
    wrong.write_text(json.dumps(book), encoding="utf-8")
    done = replayed(executed, wrong, tmp_path / "wrong")
    assert done.returncode == 1, done.stdout[-3000:]
    assert "Cell outputs differ" in done.stdout, done.stdout[-3000:]


def change_a_letter(book: dict[str, Any]) -> None:
    """Change one letter of the first claim that is compared."""
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and "nbval-ignore-output" not in cell["metadata"].get("tags", []):
            for output in cell["outputs"]:
                text = "".join(output.get("data", {}).get("text/plain", []))
                if " hold" in text:
                    output["data"]["text/plain"] = [text.replace(" hold", " h0ld", 1)]
                    return
    raise AssertionError("no claim is compared")


def comparable(notebook: Path, folder: Path) -> Path:
    """The notebook; where Drone's licence is not accepted, a copy in which the outputs of Drone's cells are not compared."""
    book = json.loads(notebook.read_text(encoding="utf-8"))
    mine = [cell for cell in book["cells"] if cell["cell_type"] == "code" and cell["id"].startswith("drone-")]
    if not mine or drone.accepted():
        return notebook
    for cell in mine:
        cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "nbval-ignore-output"]
    copy = folder / notebook.name
    copy.write_text(json.dumps(book), encoding="utf-8")
    return copy


def executed(chapter: chapters.Chapter, outputs: Path) -> dict[str, int]:
    """Run nbval over a chapter, which must pass; returns how much each step that changed something has changed."""
    record = Lab.open(chapter.id).record
    known = len(record.events())
    done = nbval(comparable(chapter.notebook, outputs), outputs, *KEPT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    steps = [e for e in record.events()[known:] if e["event"] == "step-end" and e["chapter"] == chapter.id]
    assert steps
    return {step["step"]: step["changed"] for step in steps if step["changed"]}


@pytest.mark.lane(number=1)
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
    done = nbval(path, tmp_path, *KEPT)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "1 failed" in done.stdout and "Cell outputs differ" in done.stdout, done.stdout[-3000:]
    assert (tmp_path / "wrong.jsonl").read_text().count('"cell"') > 1
