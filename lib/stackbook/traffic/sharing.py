"""Chapters that use the test bed at the same time: its pods go with the last one, and the traffic rules found come back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed
from stackbook.core.locks import Held, Lock
from stackbook.mesh.rules import found, restore
from stackbook.traffic.testbed import NAMESPACE, PODS, Testbed

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


@contextlib.contextmanager
def restored(lab: Lab) -> Iterator[None]:
    """Afterwards the traffic rules are those that were found; the test bed's pods go with the last who has them.

    The pods stay where they were there before the first. What the first found is noted in the lab's state: where a chapter
    was killed before it could give the rules back, the next one does that first. While the block runs, each step of the
    lab's chapter waits for its turn (`Lab.turn`); between steps a chapter has no rules in force, or keeps the turn.
    """
    note = lab.state / "rules.json"
    with contextlib.ExitStack() as stack:
        with lab.turn("the rules found"):
            users = stack.enter_context(_users(lab))
            if users.alone():
                there = sorted({str(pod["metadata"]["name"]) for pod in lab.kube.pods(NAMESPACE)} & set(PODS))
                if held := _noted(note):
                    restore(lab.kube, held["rules"], NAMESPACE)
                    there = held["pods"]
                data = {"rules": found(lab.kube, NAMESPACE), "pods": there}
                note.write_text(json.dumps(data), encoding="utf-8")
            users.share()
            before = found(lab.kube, NAMESPACE)
        try:
            with lab.by_turns():
                yield
        finally:
            with lab.turn("the rules given back"):
                restore(lab.kube, before, NAMESPACE)
                if users.alone():
                    there = (_noted(note) or {}).get("pods", [])
                    if mine := [name for name in PODS if name not in there]:
                        flags = (
                            "--ignore-not-found",
                            "--wait=false",
                        )  # `prepare` waits, where their names are needed again
                        lab.kube.kubectl("delete", "pod", "-n", NAMESPACE, *mine, *flags, timeout=60)
                    note.unlink(missing_ok=True)


@contextlib.contextmanager
def _users(lab: Lab) -> Iterator[Held]:
    """The lock that everybody shares who has the test bed, as long as its process lives.

    Whether somebody has it alone is asked within a turn only, so there it can always be shared.
    """
    with Lock(lab.state / "bench.users").held(
        what="the test bed to be free for sharing", timeout=10, shared=True
    ) as users:
        yield users


@contextlib.contextmanager
def used(lab: Lab) -> Iterator[Testbed]:
    """The test bed for a block that has bookinfo for itself all the while; before and after it, others may have it."""
    with lab.turn("the test bed"), restored(lab):
        yield Testbed.prepare(lab)


def _noted(note: Path) -> dict[str, Any] | None:
    """What the first found who has the test bed, or had it when it was killed: rules and pods; None where nobody has it."""
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "rules" in data else None


def given_back(lab: Lab) -> str:
    """Prove that no chapter was ended before it gave the traffic rules back; returns what there is.

    Raises:
        CheckFailed: one was.
    """
    with lab.turn("rules given back"), _users(lab) as users:
        killed = _noted(lab.state / "rules.json") and users.alone()
    if killed:
        raise CheckFailed(
            "a chapter ended before it gave back the traffic rules", fix="run it again: it does that first"
        )
    now = [f"{rule['kind']} {rule['metadata']['name']}" for rule in found(lab.kube, NAMESPACE)]
    return ", ".join(now) or "no traffic rules"
