"""Chapter 09's own checks notice when the mesh does something else than the page says.

The Greeter is deployed once, by the chapter's own cell. As they stand the steps pass (nbval has seen it); with one change to
what a step applies, never to what it predicts, the check about just that must fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mutate
import pytest
from labtools import sample
from stackbook.core.errors import CheckFailed
from stackbook.lab.lab import Lab

pytestmark = pytest.mark.live

# Step, what is changed in it, and what the check says then.
MUTATIONS: dict[str, tuple[str, str, str, str]] = {
    "another weight": (
        "weights",
        'mesh_rules.split("greeter", lab.parameters.weights)',
        'mesh_rules.split("greeter", {"v1": 60, "v2": 40})',
        "served by v1",
    ),
    "no route for the user": (
        "weights", "rules.routes(BY_USER, BY_WEIGHT)", "rules.routes(BY_WEIGHT)", "each call of the user goes to v2"),
    "fault not applied": ("abort", "mesh_rules.route(to, fault=FAULT)", "mesh_rules.route(to)", "every error comes from the fault"),
    "half the aborts": ("abort", 'rules.abort("UNAVAILABLE", lab.parameters.abort_percent)',
                        'rules.abort("UNAVAILABLE", lab.parameters.abort_percent / 2)', "UNAVAILABLE, 1 attempt"),
    "another status": ("abort", 'rules.abort("UNAVAILABLE"', 'rules.abort("ABORTED"', "UNAVAILABLE, 1 attempt"),
    "mutual TLS off": ("mtls", '("all", mode, namespace', '("all", "PERMISSIVE", namespace', "only the client outside is refused"),
    "everybody may call": (
        "identity", "rules.only(account)", 'rules.only("greeter-client")', "only the client that is named may call"),
    "retries for all calls": ("retries", "retries=rules.retries(0)", "retries=rules.retries(2)", "retried by nobody"),
    "no delay": ("deadlines", "delay_percent=100", "delay_percent=0", "the client gets DEADLINE_EXCEEDED"),
    "no sidecar": ("balance", "mesh_lessons.balance(inside, outside, 200)",
                   "mesh_lessons.balance(outside, outside, 200)", "one pod answers in three of the ways"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    """The code of each step with its claims, that of the parameters and that which binds."""
    return mutate.by_step("09-grpc")


@pytest.fixture(scope="module")
def deployed(lab: Lab, cells: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The chapter's names once the Greeter is deployed."""
    names: dict[str, Any] = {}
    for name in ("parameters", "bind", "deploy"):
        exec(cells[name], names)
    exec("from stackbook.lessons.grpc import balance", names)
    yield names
    names["lab"].leave(names["scope"])


def run(cells: dict[str, str], names: dict[str, Any], step: str, old: str = "", new: str = "") -> None:
    """Run one step's cell and those that belong to it, with a change that must fit exactly once."""
    own = dict(names)
    if step == "abort":
        exec(next(line.strip() for line in cells["retries"].splitlines() if "MESH, CLIENT =" in line), own)
    assert not old or cells[step].count(old) == 1, f"{old!r} stands {cells[step].count(old)} times in {step}"
    exec(cells[step].replace(old, new) if old else cells[step], own)
    if step == "deadlines":
        exec(cells["both-sides"], own)


@pytest.mark.parametrize("name", sample(MUTATIONS, "another weight"))
def test_its_check_fails(cells: dict[str, str], deployed: dict[str, Any], name: str) -> None:
    *change, words = MUTATIONS[name]
    with pytest.raises(CheckFailed, match=words):
        run(cells, deployed, *change)


def test_nothing_of_it_stays(deployed: dict[str, Any]) -> None:
    kinds = "virtualservices,destinationrules,peerauthentications,authorizationpolicies,envoyfilters"
    assert deployed["lab"].kube.json("get", kinds, "-n", "greeter")["items"] == []
