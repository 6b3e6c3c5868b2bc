"""The chapters' own checks notice when the lab does something else than the page says.

A copy of a chapter keeps the cells without a step, the bench, and one step. As it stands it passes; with one change to
what it applies (never to what it predicts) that step must fail.
"""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from stackbook import paths

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("lab")]
SEPARATOR = "\n# next cell\n"
DELAY = "delay_seconds=delay_seconds)\nSUBSETS"

TO_USER = 'headers={"end-user": user}, fault=FAULT'
MUTATIONS = {
    "half the aborts": (
        "07-faults",
        "faults",
        {"rules.fault(\n    abort_percent=abort_percent": "rules.fault(\n    abort_percent=15"},
    ),
    "half the delays": ("07-faults", "faults", {f"delay_percent=delay_percent, {DELAY}": f"delay_percent=15, {DELAY}"}),
    "a shorter delay": ("07-faults", "faults", {DELAY: "delay_seconds=2)\nSUBSETS"}),
    "no rule": ("07-faults", "faults", {"lab.kube, SUBSETS, FAULTY": "lab.kube, SUBSETS"}),
    "another user": ("07-faults", "faults", {TO_USER: 'headers={"end-user": "george"}, fault=FAULT'}),
    "everybody": ("07-faults", "faults", {TO_USER: "fault=FAULT"}),
    "swapped weights": (
        "06-traffic",
        "weights",
        {
            '"v1": 50, "v3": 50}\ncanary': '"v1": 90, "v3": 10}\ncanary',
            'split("reviews", lab.parameters.weights)': 'split("reviews", {"v1": 10, "v3": 90})',
        },
    ),
    "another version for the user": (
        "06-traffic",
        "weights",
        {'rules.to("reviews", "v2")': 'rules.to("reviews", "v3")'},
    ),
    "mutual TLS off": (
        "06-traffic",
        "wire",
        {'rules.peer_authentication("all", "STRICT")': 'rules.destination_rule("ratings", tls="DISABLE")'},
    ),
    "STRICT not applied": (
        "06-traffic",
        "identity",
        {'rules.peer_authentication("all", mode)': 'rules.peer_authentication("all", "PERMISSIVE")'},
    ),
    "always at random": ("06-traffic", "balance", {"balance=way": 'balance="RANDOM"'}),
    "not by the gateway": ("06-traffic", "egress", {", SHOP, *GATE]": ", SHOP]"}),
}


def copy(chapter: str, step: str, changes: dict[str, str]) -> nbformat.NotebookNode:
    """The chapter's cells that one step needs, with each change made exactly once."""
    kept = []
    for cell in json.loads((paths.notebooks() / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        steps = re.findall(r'lab\.step\("([a-z-]+)"', source)
        shows = not steps and re.match(r"lab\.(show|figure|errata)\(", source)
        if cell["cell_type"] == "code" and not shows and set(steps) <= {"bench", step}:
            kept.append(source)
        if step in steps:
            break
    text = SEPARATOR.join(kept)
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the cells of {chapter}"
        text = text.replace(old, new)
    sources = [*text.split(SEPARATOR), "lab.leave(scope)"]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def run(book: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in a kernel of its own; when that ends, what the chapter made is taken away."""
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()


@pytest.mark.parametrize(("chapter", "step"), sorted({mutation[:2] for mutation in MUTATIONS.values()}))
def test_the_copy_itself_passes(chapter, step, tmp_path):
    run(copy(chapter, step, {}), tmp_path)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_chapters_check_fails(name, tmp_path):
    chapter, step, changes = MUTATIONS[name]
    with pytest.raises(CellExecutionError) as caught:
        run(copy(chapter, step, changes), tmp_path)
    assert caught.value.ename == "CheckFailed", str(caught.value)[-2000:]
