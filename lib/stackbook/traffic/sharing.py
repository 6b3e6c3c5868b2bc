"""Sharing the test bed between chapters: the last one removes its pods, and the earlier traffic rules are restored."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.config.chapters import BOOKINFO
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.locks import Held, Lock
from stackbook.mesh.rules import found, restore
from stackbook.traffic.testbed import PODS, Testbed

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab


@contextlib.contextmanager
def restored(lab: Lab) -> Iterator[None]:
    """Use the test bed; afterwards, restore the earlier traffic rules, and let the last user remove the pods.

    If the pods existed before the first user, they stay. The lab's state notes what the first user found. If a chapter was killed
    before it restored the rules, the next one does that first; it also scales bookinfo's Deployments back and removes the broken pod.
    While the block runs, each step of the lab's chapter waits for its turn (`Lab.turn`). Between steps, a chapter has no rules applied,
    or it keeps the turn.
    """
    note = lab.state / "rules.json"
    with contextlib.ExitStack() as stack:
        with lab.turn("saving the traffic rules"):
            users = stack.enter_context(_users(lab))
            if users.alone():
                there = sorted({str(pod["metadata"]["name"]) for pod in lab.kube.pods(here().workloads)} & set(PODS))
                if held := _noted(note):
                    restore(lab.kube, held["rules"], here().workloads)
                    _repair(lab.kube, held.get("replicas", {}))
                    there = held["pods"]
                data = {"rules": found(lab.kube, here().workloads), "pods": there, "replicas": _replicas(lab.kube)}
                note.write_text(json.dumps(data), encoding="utf-8")
            users.share()
            before = found(lab.kube, here().workloads)
        try:
            with lab.by_turns():
                yield
        finally:
            with lab.turn("restoring the traffic rules"):
                restore(lab.kube, before, here().workloads)
                if users.alone():
                    there = (_noted(note) or {}).get("pods", [])
                    if mine := [name for name in PODS if name not in there]:
                        flags = (
                            "--ignore-not-found",
                            "--wait=false",
                        )  # `prepare` waits for their end if it needs the names again
                        lab.kube.kubectl("delete", "pod", "-n", here().workloads, *mine, *flags, timeout=60)
                    note.unlink(missing_ok=True)


def _replicas(kube: Kube) -> dict[str, int]:
    """How many pods each Deployment of bookinfo is to have."""
    items = kube.json("get", "deployments", "-n", here().workloads)["items"]
    return {
        item["metadata"]["name"]: item["spec"]["replicas"] for item in items if item["metadata"]["name"] in BOOKINFO
    }


def _repair(kube: Kube, before: Mapping[str, int]) -> None:
    """Take back what a killed chapter has scaled or broken."""
    for name, count in _replicas(kube).items():
        if before.get(name, count) != count:
            workload = f"deployment/{name}"
            kube.kubectl("scale", workload, "-n", here().workloads, f"--replicas={before[name]}", timeout=60)
            kube.wait_rollout(here().workloads, workload, timeout=90)
    flags = ("-l", "broken=yes", "--ignore-not-found", "--wait=false")
    kube.kubectl("delete", "pod", "-n", here().workloads, *flags, timeout=60)


@contextlib.contextmanager
def _users(lab: Lab) -> Iterator[Held]:
    """The lock that all users of the test bed share; it is released when its process ends.

    An exclusive use starts only within a turn, so within a turn this lock can always be shared.
    """
    with Lock(lab.state / "testbed.users").held(
        what="the test bed to be free for sharing", timeout=10, shared=True
    ) as users:
        yield users


@contextlib.contextmanager
def used(lab: Lab) -> Iterator[Testbed]:
    """Use the test bed and bookinfo exclusively while the block runs; others can use them before and after."""
    with lab.turn("the test bed"), restored(lab):
        yield Testbed.prepare(lab)


def _noted(note: Path) -> dict[str, Any] | None:
    """The rules and pods that the test bed's first user found, even if it was killed; None if there is no user."""
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "rules" in data else None


def given_back(lab: Lab) -> str:
    """Prove that no chapter ended before it restored the traffic rules; returns the rules that exist.

    Raises:
        CheckFailed: a chapter ended before.
    """
    with lab.turn("checking the traffic rules"), _users(lab) as users:
        killed = _noted(lab.state / "rules.json") and users.alone()
    if killed:
        raise CheckFailed(
            "a chapter ended before it restored the traffic rules", fix="run it again: it restores them first"
        )
    now = [f"{rule['kind']} {rule['metadata']['name']}" for rule in found(lab.kube, here().workloads)]
    return ", ".join(now) or "no traffic rules"
