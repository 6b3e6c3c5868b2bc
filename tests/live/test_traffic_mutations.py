"""The chapters' own checks notice when the lab does something else than the page says.

A copy of a chapter keeps the cells without a step, and one step (which nbval has seen pass as it stands). With
one change to what it applies, never to what it predicts, the check about just that must fail.
"""

import re
import subprocess
import sys

import pytest
from labtools import sample
from mutate import copy, run_here
from stackbook.core.errors import CheckFailed
from stackbook.mesh import rules
from stackbook.traffic import sharing

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("untraced", "one_bench", "alone")]
DELAY = "delay_seconds=delay_seconds)\nSUBSETS"
SHORT = {"delay_seconds = 5": "delay_seconds = 2"}
"""Parameter of 07 with which a run is over sooner; still longer than any call takes on a machine with other work."""

TO_USER = 'headers={"end-user": user}, fault=FAULT'
SURE = SHORT | {"power = 0.99": "power = 0.9999"}
"""With enough calls that half the share is not only noticed in 99 of 100 runs."""
FEW = SHORT | {"power = 0.99": "power = 0.8"}
"""Enough calls to notice that there is no rule at all."""
# Chapter, step, what is changed in it, and what the check says then.
MUTATIONS = {
    "half the aborts": (
        "07-faults",
        "faults",
        SURE | {"rules.fault(\n    abort_percent=abort_percent": "rules.fault(\n    abort_percent=15"},
        "jason: aborted with 500",
    ),
    "half the delays": (
        "07-faults",
        "faults",
        SURE | {f"delay_percent=delay_percent, {DELAY}": f"delay_percent=15, {DELAY}"},
        "jason: delayed by 2 s",
    ),
    "a shorter delay": (
        "07-faults",
        "faults",
        SHORT | {DELAY: "delay_seconds=0.5)\nSUBSETS"},
        "jason: delayed by 2 s",
    ),
    "no rule": (
        "07-faults",
        "faults",
        FEW | {"lab.kube, SUBSETS, FAULTY": "lab.kube, SUBSETS"},
        "jason: aborted with 500",
    ),
    "another user": (
        "07-faults",
        "faults",
        SHORT | {TO_USER: 'headers={"end-user": "george"}, fault=FAULT'},
        "jason: aborted with 500",
    ),
    "everybody": ("07-faults", "faults", SHORT | {TO_USER: "fault=FAULT"}, "control: delayed"),
    "swapped weights": (
        "06-traffic",
        "weights",
        {
            'weights = {"v1": 50, "v3": 50}': 'weights = {"v1": 90, "v3": 10}',
            'split("reviews", lab.parameters.weights)': 'split("reviews", {"v1": 10, "v3": 90})',
        },
        "others: served by v1",
    ),
    "another version for the user": (
        "06-traffic",
        "weights",
        {'rules.to("reviews", "v2")': 'rules.to("reviews", "v3")'},
        "user: served by v2",
    ),
    "mutual TLS off": (
        "06-traffic",
        "wire",
        {'rules.peer_authentication("all", "STRICT")': 'rules.destination_rule("ratings", tls="DISABLE")'},
        "there is TLS between the pods|no plain text",
    ),
    "STRICT not applied": (
        "06-traffic",
        "identity",
        {'rules.peer_authentication("all", mode)': 'rules.peer_authentication("all", "PERMISSIVE")'},
        "only the client outside is refused under STRICT",
    ),
    "always at random": (
        "06-traffic",
        "balance",
        {"balance=way": 'balance="RANDOM"', "count=900": "count=300"},
        "ROUND_ROBIN",
    ),
    "not by the gateway": ("06-traffic", "egress", {", SHOP, *GATE]": ", SHOP]"}, "only the routed requests"),
}


@pytest.mark.parametrize("name", sample(MUTATIONS, "no rule"))
def test_the_chapters_check_fails(name, one_bench):
    chapter, step, changes, words = MUTATIONS[name]
    before = rules.found(one_bench.kube)
    steps = (
        ("before", step) if chapter == "07-faults" else (step,)
    )  # what 07 measures without the rule is the comparison
    for _ in range(3):
        with pytest.raises(CheckFailed) as caught:
            run_here(copy(chapter, *steps, changes=changes, leave="", bench=False), testbed=one_bench)
        assert rules.found(one_bench.kube) == before
        if "this machine is too busy to judge" not in str(caught.value):
            break  # else other tests beside this one kept the processors busy, and nothing was judged
    assert re.search(words, str(caught.value)), caught.value


def test_a_chapter_that_is_killed_has_its_rules_taken_back_by_the_next(lab):
    """A process that holds rules ends without a chance to give them back; the check notices, the next chapter repairs."""
    script = (
        "import os; from stackbook.traffic import sharing; from stackbook.lab.lab import Lab; from stackbook.mesh import rules\n"
        "lab = Lab.open('07-faults'); lab.enter(sharing.restored(lab))\n"
        "lab.enter(rules.applied(lab.kube, rules.destination_rule('reviews', versions=['v1']))); os._exit(9)"
    )
    own = [lab.state / name for name in ("rules.json", "testbed.users")]  # of this module's own bench
    for path in own:
        path.rename(path.with_suffix(".aside"))
    try:
        before = rules.found(lab.kube)
        assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 9
        assert len(rules.found(lab.kube)) == len(before) + 1
        with pytest.raises(CheckFailed, match="before it restored"):
            sharing.given_back(lab)
        with sharing.restored(lab):
            assert rules.found(lab.kube) == before
        sharing.given_back(lab)
    finally:
        for path in own:
            path.with_suffix(".aside").replace(path)
