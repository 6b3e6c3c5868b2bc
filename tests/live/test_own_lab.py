"""What can go wrong, tried on a lab of its own beside the one that everybody uses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labtools import ROOT, left_on_this_host, stackbook
from stackbook.app import host_state, reset
from stackbook.cluster import kubeadm
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.lab.step import Record
from stackbook.machines.providers.podman import Embedded

pytestmark = [pytest.mark.live, pytest.mark.more]

SMALL = """\
target: embedded
lab: sbtest
nodes:
  - {name: solo, address: 192.168.97.3}
subnet: 192.168.97.0/24
gateway: 192.168.97.2
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab of one machine beside the other, for what cannot be tried on the one that everybody uses."""
    path = tmp_path_factory.mktemp("own") / "small.yaml"
    path.write_text(SMALL)
    before = _snapshot()
    yield path
    assert reset.reset(Profile.load(path), say=lambda text: None) == []
    # Containers and probes of other tests come and go meanwhile.
    until(lambda: left_on_this_host(path, before) == [], what="the host to be as it was before", timeout=60, every=2,
          last=lambda: str(left_on_this_host(path, before)))  # fmt: skip


def _snapshot() -> host_state.Snapshot:
    """The host at a moment without preflight's probes, which another test may run."""

    def taken() -> host_state.Snapshot | None:
        found = reset.snapshot()
        return None if "stackbook-probe-" in repr(found) else found

    return until(taken, what="preflight's probes to end", timeout=60)


def test_an_interrupted_run_keeps_its_record_and_goes_on(small: Path, lab: Lab) -> None:
    """Ctrl-C in the middle of kubeadm init; the next run continues."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "run", "--profile", str(small), "--to", "02"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "• init:" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130, rest
    finally:
        if process.poll() is None:
            process.kill()
        if process.stdout:
            process.stdout.close()
    assert "interrupted" in rest
    mine = [f for f in paths.runs().glob("2*") if "lab: sbtest" in (f / "profile.yaml").read_text()]
    folder = max(mine)
    assert (folder / "run.json").exists() and (folder / "02-kubeadm.ipynb").exists()
    assert any(e["event"] == "step-end" and e["step"] == "images" for e in Record(folder / "events.jsonl").events())
    children = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False)
    assert children.stdout == "", children.stdout
    again = stackbook("run", "--profile", str(small), "--to", "02")
    assert again.status == 0, again.output[-4000:]
    assert "01-machines   unchanged" in again.output
    solo = Embedded(Profile.load(small)).machines()["solo"]
    assert kubeadm.initialised(solo)


def test_a_stopped_lab_is_started_with_all_that_is_in_it(small: Path, lab: Lab) -> None:
    """More of it, and snapshots, in test_life.py; here without a pod network, so it is waited for the API server alone."""
    assert stackbook("run", "--profile", str(small), "--to", "02").status == 0
    profile = Profile.load(small)
    solo = Embedded(profile).machines()["solo"]
    solo.write("/root/kept", "kept")
    uid = [n["metadata"]["uid"] for n in Lab.open("02-kubeadm", small).kube.nodes()]
    done = stackbook("stop", "--profile", str(small))
    assert done.status == 0 and "✓ the lab 'sbtest' is stopped" in done.output, done.output
    assert json.loads(stackbook("status", "--json", "--profile", str(small)).output)["stopped"] is True
    again = stackbook("stop", "--profile", str(small))
    assert again.status == 2 and "the lab 'sbtest' is not running — stackbook start" in again.output, again.output
    done = stackbook("start", "--profile", str(small))
    assert done.status == 0 and "✓ the lab 'sbtest' runs" in done.output, done.output
    assert Embedded(profile).machines()["solo"].read("/root/kept") == "kept"
    assert [n["metadata"]["uid"] for n in Lab.open("02-kubeadm", small).kube.nodes()] == uid


def test_what_is_left_is_named_and_what_is_not_the_labs_is_told_apart(small: Path, lab: Lab) -> None:
    """The lab that was interrupted is taken away, all of it; an interface is the lab's while it has an address of its subnet."""
    assert stackbook("run", "--profile", str(small), "--to", "01").status == 0
    subprocess.run(["ip", "link", "add", "sbleft", "type", "dummy"], check=False)
    made = subprocess.run(["ip", "link", "show", "sbleft"], capture_output=True, check=False).returncode == 0
    if not made:
        subprocess.run(["ip", "link", "add", "sbleft", "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "192.168.97.77/32", "dev", "sbleft"], check=True)
        done = stackbook("reset", "--profile", str(small))
        assert done.status == 1, done.output
        assert "✗ interfaces: left over: sbleft" in done.output
        assert len([line for line in done.output.splitlines() if line.startswith("✗")]) == 1, done.output
        assert Embedded(Profile.load(small)).containers() == {}
        subprocess.run(["ip", "address", "flush", "dev", "sbleft"], check=True)
        done = stackbook("reset", "--profile", str(small))
        assert done.status == 0, done.output
        assert "changed meanwhile, not by this lab: interfaces: left over: sbleft" in done.output
        assert "as it was before" in done.output
        assert subprocess.run(["ip", "link", "show", "sbleft"], capture_output=True, check=False).returncode == 0
    finally:
        subprocess.run(["ip", "link", "delete", "sbleft"], check=True)


def test_a_failing_step_says_what_failed_and_blocks_what_comes_after(small: Path, lab: Lab) -> None:
    """The subnet is taken by the lab that runs: refused before anything is changed."""
    taken = small.with_name("taken.yaml")
    taken.write_text(SMALL.replace("sbtest", "sbtaken").replace("192.168.97", "192.168.98"))
    before = Embedded(Profile.load(taken)).containers()
    done = stackbook("run", "--profile", str(taken), "--to", "01")
    assert done.status == 2, done.output
    assert "subnet" in done.output and "choose another subnet" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert Embedded(Profile.load(taken)).containers() == before == {}


def test_the_last_chapter_takes_the_lab_away(small: Path, lab: Lab) -> None:
    """As a run, which holds the lab's lock while its own chapter resets the lab."""
    state = paths.state(Profile.load(small).lab)
    made = stackbook("run", "--profile", str(small), "--to", "01")
    assert made.status == 0 and (state / "instance").exists(), made.output[-3000:]
    done = stackbook("run", "--profile", str(small), "--only", "99", "--again")
    assert done.status == 0, done.output[-3000:]
    assert Embedded(Profile.load(small)).containers() == {} and not (state / "instance").exists()
