"""`target: vm`: two virtual machines under QEMU, as the guide has them: copies of one snapshot, swap, a start that fails.

Without KVM, QEMU translates each instruction, and everything takes several times as long.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from labtools import keep_evidence, left_on_this_host, stackbook
from stackbook.app import reset
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import WaitTimeout
from stackbook.machines.providers import VirtualMachines
from stackbook.machines.virtual import disks

pytestmark = [pytest.mark.live, pytest.mark.more]
LAB = "sbvm"
NET = "192.168.83"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile of a lab that is gone afterwards; the host is as before."""
    before = reset.snapshot()
    path = tmp_path_factory.mktemp("vm") / "sbvm.yaml"
    nodes = [{"name": "k8s-master", "address": f"{NET}.3"}, {"name": "k8s-node1", "address": f"{NET}.4"}]
    path.write_text(
        yaml.safe_dump({"target": "vm", "lab": LAB, "nodes": nodes, "subnet": f"{NET}.0/24", "gateway": f"{NET}.2"})
    )
    yield path
    done = stackbook("reset", "--profile", str(path))
    assert done.status == 0, done.output
    assert "this host is as it was before the lab" in done.output
    assert left_on_this_host(path, before) == []
    assert not (paths.states() / LAB / "vm").exists()
    assert (
        subprocess.run(["pgrep", "-f", f"qemu-system.*{LAB}-"], check=False, stdout=subprocess.DEVNULL).returncode == 1
    )


def run(profile: Path, *words: str) -> list[dict[str, Any]]:
    """Run chapters; returns what was recorded."""
    done = stackbook("run", "--profile", str(profile), *words, timeout=2400)
    if done.status:
        keep_evidence(done.output)
    assert done.status == 0, done.output[-4000:]
    lines = (done.run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ended(events: list[dict[str, Any]], step: str) -> dict[str, Any]:
    (found,) = [event for event in events if event["event"] == "step-end" and event["step"] == step]
    return found


def provider(profile: Path) -> VirtualMachines:
    return VirtualMachines(Profile.load(profile))


def test_two_copies_of_one_snapshot_become_machines(profile: Path) -> None:
    events = run(profile, "--to", "01")
    said = [str(event) for event in events if event["event"] == "check" and event["step"] == "clones"]
    assert said, "the copies were compared"
    assert ended(events, "swap")["changed"] == 4, "the machines were installed with swap: fstab and swapoff on both"
    saved = ended(events, "rescue")["evidence"]
    assert not saved["by_ssh"]
    assert any("vdz" in line or "/data" in line for line in saved["console"]), saved
    hosts = provider(profile).machines()
    for host in hosts.values():
        assert host.run(["cat", "/proc/swaps"]).stdout.count("\n") == 1, "only its header"
        assert host.run(["systemd-detect-virt", "--vm"]).ok
    kernels = {host.run(["uname", "-r"]).stdout for host in hosts.values()}
    assert kernels != {subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout}
    assert len({host.run(["cat", "/etc/machine-id"]).stdout for host in hosts.values()}) == 2


def test_a_stopped_lab_comes_back(profile: Path) -> None:
    done = stackbook("stop", "--profile", str(profile))
    assert done.status == 0, done.output
    assert provider(profile).machines() == {}
    done = stackbook("start", "--profile", str(profile))
    assert done.status == 0, done.output
    assert "2 machines run" in done.output
    for host in provider(profile).machines().values():
        assert host.run(["cat", "/proc/swaps"]).stdout.count("\n") == 1, "swap stays off after a start"
        assert host.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"


def test_a_machine_that_does_not_boot_says_what_its_console_showed(profile: Path, tmp_path: Path) -> None:
    """Here its kernel finds no disk with the label of the root file system."""
    of_lab = provider(profile)
    node = of_lab.profile.nodes[1]
    machine = of_lab.machine(node)
    machine.stop()
    template = of_lab.template(lambda text: None)
    bare = tmp_path / "template"
    bare.mkdir()
    for name in ("kernel", "disk.raw"):
        (bare / name).symlink_to(template.folder / name)
    (bare / "initrd").write_bytes(b"")
    try:
        machine.start(of_lab.host, disks.Template(bare))
        with pytest.raises(WaitTimeout, match=r"Kernel panic|Unable to mount root|VFS"):
            of_lab.wait_booted(node, 45)
    finally:
        machine.stop(0)
        assert machine.start(of_lab.host, template)
        of_lab.wait_booted(node, 420)
