"""`make test-vm`: Kubernetes on the two virtual machines of the profile `vm`, chapters 00 to 03; about 20 minutes without KVM.

Without KVM it needs this host for itself: beside other tests, kubeadm gives up after 12 minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from labtools import Done, keep_evidence, stackbook
from stackbook.app import reset, session
from stackbook.lab.lab import Lab

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.environ.get("STACKBOOK_TEST_VM"), reason="it needs this host for itself: make test-vm"),
]
PROFILE = "vm"
CHAPTERS = ("00-preflight", "01-machines", "02-kubeadm", "03-flannel")


@pytest.fixture(scope="module")
def first() -> Iterator[tuple[Lab, Done]]:
    """The lab on virtual machines, and its first run; it is gone afterwards, and this host is as before."""
    before = reset.snapshot()
    try:
        done = stackbook("run", "--profile", PROFILE, "--to", "03", timeout=3600)
        if done.status:
            keep_evidence(done.output)
        assert done.status == 0, done.output[-4000:]
        yield session.opened("03-flannel", PROFILE), done
    finally:
        gone = stackbook("reset", "--profile", PROFILE)
        assert gone.status == 0, gone.output
    assert "this host is as it was before the lab" in gone.output
    assert reset.compare(before, reset.snapshot()) == []


@pytest.fixture(scope="module")
def machines(first: tuple[Lab, Done]) -> Lab:
    return first[0]


def test_every_chapter_passes_and_its_checks_hold(first: tuple[Lab, Done]) -> None:
    machines, done = first
    run = json.loads((done.run / "run.json").read_text(encoding="utf-8"))
    assert {o["chapter"]: o["outcome"] for o in run["chapters"]} == dict.fromkeys(CHAPTERS, "passed")
    for chapter in CHAPTERS:
        for check in machines.checks_of(chapter):
            assert check.prove(machines), check.claim


def test_both_nodes_have_a_kernel_that_is_not_this_hosts(machines: Lab) -> None:
    mine = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    kernels = {node["metadata"]["name"]: node["status"]["nodeInfo"]["kernelVersion"] for node in machines.kube.nodes()}
    assert set(kernels) == {"k8s-master", "k8s-node1"}
    assert mine not in kernels.values()


def test_a_second_run_changes_nothing(machines: Lab) -> None:
    done = stackbook("run", "--profile", PROFILE, "--to", "03", timeout=600)
    assert done.status == 0, done.output[-4000:]
    run = json.loads((done.run / "run.json").read_text(encoding="utf-8"))
    assert {o["outcome"] for o in run["chapters"]} == {"unchanged"}
    assert sum(o["changed"] for o in run["chapters"]) == 0
