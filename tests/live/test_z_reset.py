"""The end of `make test`: no secret got out, and a lab that it built itself is taken away, and the host is as it was."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import canaries
import pytest
import strangers
import tool_module
from canaries import NAME
from labtools import stackbook
from secrets_scan import command_lines, scan
from stackbook.cluster.kube import CREDENTIALS
from stackbook.config.profile import Profile
from stackbook.core import paths, temp_dirs
from stackbook.lab.lab import Lab
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import LocalHost

pytestmark = pytest.mark.live


def test_the_manifests_are_what_the_chapters_applied(lab: Lab) -> None:
    """Each file of notebooks/manifests is what the cluster took in one of the runs of this session."""
    tool, folder = tool_module.load("manifests"), paths.notebooks() / "manifests"
    records = [*paths.runs().glob("2*/events.jsonl"), lab.state / "interactive" / "events.jsonl"]
    taken: dict[str, set[str]] = {}
    for record in (path for path in records if path.exists()):
        for chapter, step, _, text in tool.applied(tool.read(record)):
            taken.setdefault(f"{chapter}/{step}", set()).add(tool.as_yaml(text))
    everything = set().union(*taken.values())
    wrong = []
    for path in sorted(folder.glob("*/*.yaml")):
        manifest = path.read_text(encoding="utf-8").partition("\n")[2]
        step = re.sub(r"-\d+$", "", path.stem)
        seen = f"{path.parent.name}/{path.stem}" in taken or f"{path.parent.name}/{step}" in taken
        # What a standing lab had already was not applied again.
        if manifest not in everything and (seen or os.environ.get("STACKBOOK_LAB_WAS_THERE") == "0"):
            wrong.append(f"{path.parent.name}/{path.name}")
    assert wrong == [], "run tools/manifests.py with the record of a run on a new lab"


def test_no_secret_in_anything_that_was_left(lab: Lab, left_behind: Path, tmp_path: Path) -> None:
    """Neither what was planted, nor a secret of the lab's own, nor anything of the shape of one: in no output, record, log or
    report; and no process has one on its command line."""
    held = canaries.held(lab)
    assert any(NAME in where for where in held), "test_a_lab plants it"
    lab.provider.collect_logs(tmp_path / "journals")
    pods = tmp_path / "pods"
    pods.mkdir()

    def keep_log(pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        flags = ("--all-containers", "--tail=5000", "-n", meta["namespace"])
        said = lab.kube.kubectl("logs", meta["name"], *flags, check=False, timeout=60).stdout
        (pods / f"{meta['namespace']}-{meta['name']}.log").write_text(said)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_log, lab.kube.json("get", "pods", "-A")["items"]))
    runs, state = paths.runs(), sorted(lab.state.rglob("*.jsonl"))
    logs = os.environ.get("STACKBOOK_TEST_LOGS", left_behind)
    everything = [runs, *state, logs, tmp_path, paths.notebooks(), paths.checkout() / "docs"]
    assert list(runs.rglob("report.html")) and state
    found = scan(everything, held.values()) + command_lines(held.values())
    temp_dirs.sweep(CREDENTIALS)  # of kernels that were killed: the next process does it
    folders = Path(tempfile.gettempdir()).glob(f"stackbook-{CREDENTIALS}-*")
    assert [f for f in folders if not Path("/proc", f.name.split("-")[2]).exists()] == [], "of a process that has ended"
    mine = [p for p in Path(tempfile.gettempdir()).glob("tmp*") if p.is_file() and p.stat().st_uid == os.geteuid()]
    found += [finding for finding in scan(mine, held.values()) if finding.kind == "canary"]
    canaries.uproot(lab)
    assert found == []


def test_a_canary_that_got_out_is_found(lab: Lab, tmp_path: Path) -> None:
    """Each secret in a file of its own, in a form in which it could get out: each file is named."""
    held = canaries.held(lab)
    for number, value in enumerate(held.values()):
        text = f"{{'seen': '{base64.b64encode(value.encode()).decode()}'}}" if number % 2 else f"line\n{value}\n"
        (tmp_path / f"{number}.log").write_text(text)
    found = scan([tmp_path], held.values())
    assert {finding.path.stem for finding in found if finding.kind == "canary"} == set(map(str, range(len(held))))


def test_reset_leaves_the_host_as_it_was() -> None:
    if os.environ.get("STACKBOOK_LAB_WAS_THERE") != "0":
        pytest.skip("the lab was there before, and stays")
    profile = Profile.load()
    assert Embedded(profile).containers()
    done = stackbook("reset")
    assert done.status == 0, done.output
    assert "as it was before" in done.output
    assert Embedded(profile).containers() == {}
    assert not (paths.state(profile.lab) / "instance").exists()
    assert temp_dirs.abandoned("[a-z]+") == [], "temporary folders of killed processes"


def test_what_strangers_have_is_still_there(lab: Lab) -> None:
    """Files, a volume, a network, a rule and a namespace of somebody else's: there before the lab, and not taken away with it."""
    gone = strangers.missing(LocalHost())
    if os.environ.get("STACKBOOK_FIRST_RUN"):  # tools/test.sh has planted them; else the session takes them away
        strangers.remove(LocalHost())
    assert gone == []
