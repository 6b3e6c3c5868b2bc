"""On an existing cluster, cells about machines say so in one sentence; all others run as they are."""

from __future__ import annotations

import ast
import builtins
import json

import pytest
from stackbook.config import chapters
from stackbook.config.profile import Profile
from stackbook.lab import reading
from stackbook.lab.reading import Cells, names


def sources(number: str) -> list[str]:
    book = json.loads(chapters.find(number).notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def run(number: str) -> dict[str, str]:
    """What IPython would run for each cell of a chapter."""
    cells = Cells(chapters.find(number))
    return {text: "".join(cells(text.splitlines(keepends=True))) for text in sources(number)}


def steps(number: str, *, kept: bool) -> set[str]:
    found = {match[1]: after == text for text, after in run(number).items() if (match := reading._STEP.search(text))}
    return {step for step, same in found.items() if same == kept}


@pytest.mark.parametrize("number", ["01", "02", "03", "14", "16"])
def test_a_chapter_that_is_only_read_binds_and_does_nothing_else(number: str) -> None:
    done = run(number)
    kept = [text for text, after in done.items() if after == text]
    assert any("bind(" in text for text in kept)
    assert all("bind(" in text or text in ("lab.errata()", "lab.postconditions()") for text in kept)
    assert {after for text, after in done.items() if text not in kept} == {"pass\n"}


def test_chapter_04_runs_what_needs_no_machine() -> None:
    assert steps("04", kept=True) == {"deploy", "replace"}
    assert steps("04", kept=False) == {"actors", "nodes", "pod", "service", "balance", "api"}


def test_chapter_05_leaves_out_one_step() -> None:
    assert steps("05", kept=False) == {"capture"}


def test_chapter_10_leaves_out_what_belongs_to_the_nodes_and_the_whole_mesh() -> None:
    assert steps("10", kept=False) == {"resources", "kiali"}


def test_chapter_11_leaves_istiod_and_the_machines_alone() -> None:
    assert steps("11", kept=False) == {"istiod", "killed", "rules"}


def test_chapter_12_leaves_out_what_needs_a_machines_files() -> None:
    assert steps("12", kept=False) == {"nothing-lost"}


@pytest.mark.parametrize("number", ["04", "05", "10", "11", "12"])
def test_no_cell_reads_what_only_cells_that_were_left_out_would_set(number: str) -> None:
    known = set(dir(builtins))
    for text, after in run(number).items():
        read, written = names(after)
        imported = {line.split()[-1] for line in text.splitlines() if line.startswith(("import ", "from "))}
        assert after == text or after == "pass\n" or "– on an existing cluster" in after
        known |= (
            written
            | imported
            | {w.strip(",() ") for line in text.splitlines() if "import" in line for w in line.split()}
        )
        arguments = {node.arg for node in ast.walk(ast.parse(text)) if isinstance(node, ast.arg)}
        assert not read - known - arguments, (text[:80], read - known)


@pytest.mark.parametrize("number", ["04", "05", "10", "11", "12"])
def test_the_claims_of_a_step_that_is_left_out_are_left_out(number: str) -> None:
    done = run(number)
    for text, after in done.items():
        for step in reading._CLAIMS.findall(text):
            assert (after == text) == (step in steps(number, kept=True)), step
            assert after in (text, "pass\n")


def test_the_sentence_names_the_step_and_the_reason() -> None:
    said = [after for after in run("05").values() if "– on an existing" in after]
    assert said == [
        'print("– on an existing cluster, the step capture is only read: it reads a pod\'s iptables rules on its machine")\n'
    ]


def test_a_learners_own_cell_runs() -> None:
    cells = Cells(chapters.find("01"))
    assert cells(["1 + 1\n"]) == ["1 + 1\n"]


def test_a_name_is_missing_until_a_cell_that_runs_sets_it() -> None:
    cells = Cells(chapters.find("04"))
    own = sources("04")
    texts = {reading._STEP.search(text)[1]: text for text in own if reading._STEP.search(text)}  # type: ignore[index]
    assert cells([texts["service"]]) != [texts["service"]]
    assert "it needs a step that is left out" not in cells([texts["balance"]])[0]  # its own reason
    (plot,) = [text for text in own if "service_routing.plot(" in text]
    assert cells([plot]) == ["pass\n"]


def test_every_step_that_is_left_out_exists() -> None:
    for chapter, left_out in reading.STEPS.items():
        found = {match[1] for text in sources(chapter[:2]) if (match := reading._STEP.search(text))}
        assert set(left_out) <= found
    assert set(reading.READ) <= {chapter.id for chapter in chapters.ALL}


def test_only_an_existing_cluster_leaves_anything_out() -> None:
    assert reading.only_read(Profile.load(), chapters.find("01")) == ""
    assert reading.only_read(Profile.load(overrides={"target": "cluster"}), chapters.find("01")) == "it makes machines"
