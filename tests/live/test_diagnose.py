"""Causes planted in a lab of its own: `diagnose` names each as the first or the second, and finds nothing once it is put back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import secrets_scan
from labtools import keep_evidence, left_on_this_host, stackbook
from plants import PLANTS, Plant
from stackbook.app import reset
from stackbook.app.diagnose import Diagnosis, diagnose
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab

pytestmark = [pytest.mark.live, pytest.mark.more]

OWN = """\
target: embedded
lab: sbdiag
nodes:
  - {name: k8s-master, address: 192.168.97.3}
  - {name: k8s-node1, address: 192.168.97.4}
subnet: 192.168.97.0/24
gateway: 192.168.97.2
"""
LONGEST = 30.0
"""Seconds that a diagnosis may take, whatever is broken."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile of a lab of two machines with the mesh; one that is there already is used, and stays."""
    if os.geteuid():
        pytest.fail("the live tests need root: run them by `make test-more`, which asks sudo")
    path = tmp_path_factory.mktemp("own") / "diagnosed.yaml"
    path.write_text(OWN)
    was_there = (paths.states() / "sbdiag" / "instance").exists()
    before = reset.snapshot()
    if not was_there:
        done = stackbook("run", "--profile", str(path), "--to", "05")
        if done.status:
            keep_evidence(done.output)
            pytest.fail(done.output[-4000:])
    yield path
    if not was_there:
        assert reset.reset(Profile.load(path), say=lambda text: None) == []
        assert left_on_this_host(path, before) == []


@pytest.fixture
def sound(own: Path) -> Lab:
    """The lab, of which a diagnosis says that nothing is wrong."""
    lab = Lab.open("05-istio", own)
    recovered(lab, own)
    return lab


def found(own: Path) -> Diagnosis:
    return diagnose(Profile.load(own), str(own))


def recovered(lab: Lab, own: Path) -> None:
    """Nothing is found any more."""
    seen: list[Diagnosis] = []

    def nothing() -> bool:
        seen[:] = [found(own)]
        return not seen[0].causes

    until(nothing, what="a diagnosis finds nothing", timeout=240, every=2, last=lambda: "\n".join(seen[0].lines()))


def test_at_least_25_causes_are_planted() -> None:
    assert len(PLANTS) >= 25
    assert len({cause for plant in PLANTS for cause in plant.causes}) >= 25


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.id)
def test_what_is_planted_is_found_as_the_first_or_the_second(sound: Lab, own: Path, plant: Plant) -> None:
    seen: list[Diagnosis] = []

    def named() -> bool:
        seen.append(found(own))
        return bool(set(seen[-1].names[:2]) & set(plant.causes))

    with plant.harm(sound):
        until(named, what=f"{plant.causes} is the first or the second", timeout=90, every=1,
              last=lambda: "\n".join(seen[-1].lines()))  # fmt: skip
        cause = next(c for c in seen[-1].causes[:2] if c.name in plant.causes)
        print("\n".join(seen[-1].lines()))
    assert cause.evidence and all(cause.evidence), cause
    assert cause.fix, cause
    assert max(one.snapshot.seconds for one in seen) < LONGEST, [one.snapshot.seconds for one in seen]


def test_a_sound_lab_has_nothing_wrong_and_its_bundle_no_secret(sound: Lab, own: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "lab.tar.gz"
    done = stackbook("diagnose", "--profile", str(own), "--bundle", str(bundle))
    assert done.status == 0, done.output
    assert done.output.startswith("no problem was found"), done.output
    assert bundle.stat().st_mode & 0o777 == 0o600
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path, filter="data")
    inside = tmp_path / "stackbook-diagnosis"
    names = {p.relative_to(inside).as_posix() for p in inside.rglob("*") if p.is_file()}
    assert {"diagnosis.txt", "about.json", "cluster/pods.json", "machines/k8s-node1/kubelet-log.txt"} <= names
    assert not [name for name in names if "secret" in name.lower()]
    keys = json.loads(sound.kube.kubectl("config", "view", "--raw", "-o", "json", secret=True).reveal())
    planted = [keys["users"][0]["user"]["client-key-data"][:200]]
    assert secrets_scan.scan([inside], planted) == []
    again = stackbook("diagnose", "--profile", str(own), "--bundle", str(bundle))
    assert again.status == 2 and "exists already" in again.output


def test_a_diagnosis_changes_nothing(sound: Lab, own: Path) -> None:
    """Of each machine: its files, its rules, its processes that stay; of the cluster: what each object has as its version."""

    def state() -> dict[str, str]:
        machines = sound.machines
        files = (
            "find /etc /opt/cni /var/lib/kubelet/config.yaml /root -xdev -type f -exec stat -c '%n %Y %s' {} + | sort"
        )
        seen = {f"{n} files": h.run(["sh", "-c", files]).stdout for n, h in machines.items()}
        seen |= {f"{n} units": h.run(["systemctl", "show", "-p", "NRestarts,ActiveEnterTimestamp", "kubelet", "containerd"]).stdout
                 for n, h in machines.items()}  # fmt: skip
        seen |= {f"{n} rules": h.run(["sh", "-c", "iptables-save | grep -v '^#' | sed 's/\\[.*\\]//'"]).stdout
                 for n, h in machines.items()}  # fmt: skip
        what = "deployments,daemonsets,services,configmaps,secrets,namespaces"
        columns = "custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name,G:.metadata.generation,U:.metadata.uid"
        return seen | {"objects": sound.kube.kubectl("get", what, "-A", "-o", columns).stdout}

    before = state()
    assert found(own).causes == []
    assert state() == before


def test_a_failing_lab_by_the_command_line(sound: Lab, own: Path) -> None:
    plant = next(p for p in PLANTS if p.id == "kubelet_stopped")
    with plant.harm(sound):
        start = time.monotonic()
        done = stackbook("diagnose", "--profile", str(own), "--json")
        assert time.monotonic() - start < LONGEST + 5
    assert done.status == 1, done.output
    causes = json.loads(done.output)["causes"]
    assert causes[0]["name"] == "kubelet-stopped"
    assert "systemctl start kubelet" in causes[0]["fix"]


def test_the_command_that_is_named_puts_it_right(sound: Lab, own: Path) -> None:
    """As the reader would: the fix is pasted into a shell."""
    sound.machines["k8s-node1"].run(["systemctl", "stop", "kubelet"])
    fix = found(own).causes[0].fix
    done = subprocess.run(["bash", "-c", fix.replace("stackbook ", "$PYTHON -m stackbook ")], capture_output=True, text=True,
                          timeout=120, check=False, env={**os.environ, "PYTHON": sys.executable})  # fmt: skip
    assert done.returncode == 0, done.stderr
    recovered(sound, own)
