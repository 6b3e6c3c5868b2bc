"""The chapters' own checks notice when the lab does something else than the page says.

A copy of a chapter keeps the cells without a step, the bench, and one step. As it stands it passes; with one change to
what it applies (never to what it predicts) that step must fail.
"""

import subprocess
import sys

import pytest
from mutate import copy, run
from nbclient.exceptions import CellExecutionError
from stackbook import bench
from stackbook import mesh_rules as rules
from stackbook.errors import CheckFailed

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_bench")]
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


@pytest.mark.parametrize(("chapter", "step"), sorted({mutation[:2] for mutation in MUTATIONS.values()}))
def test_the_copy_itself_passes(chapter, step, tmp_path):
    run(copy(chapter, step), tmp_path)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_chapters_check_fails(name, tmp_path):
    chapter, step, changes = MUTATIONS[name]
    with pytest.raises(CellExecutionError) as caught:
        run(copy(chapter, step, changes=changes), tmp_path)
    assert caught.value.ename == "CheckFailed", str(caught.value)[-2000:]


def test_a_chapter_that_is_killed_has_its_rules_taken_back_by_the_next(lab):
    """A process that holds rules ends without a chance to give them back; the check notices, the next chapter repairs."""
    script = (
        "import os; from stackbook import bench; from stackbook.chapter import Lab; from stackbook import mesh_rules as rules\n"
        "lab = Lab.open('07-faults'); lab.enter(bench.restored(lab))\n"
        "lab.enter(rules.applied(lab.kube, rules.destination_rule('reviews', versions=['v1']))); os._exit(9)"
    )
    (lab.state / "rules.json").rename(aside := lab.state / "rules.aside")  # that of this module's own bench
    try:
        before = rules.found(lab.kube)
        assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 9
        assert len(rules.found(lab.kube)) == len(before) + 1
        with pytest.raises(CheckFailed, match="before it gave back"):
            bench.given_back(lab)
        with bench.restored(lab):
            assert rules.found(lab.kube) == before
        bench.given_back(lab)
    finally:
        (lab.state / "rules.json").unlink(missing_ok=True)
        aside.rename(lab.state / "rules.json")
