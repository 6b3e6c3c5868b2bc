"""What a host must have: a podman that is too old is refused, here and before anything is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from stackbook.app import preflight
from stackbook.config.profile import Profile
from stackbook.core.errors import HostUnfit
from stackbook.machines.transports import LocalHost

ROOT = Path(__file__).parents[2]


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "met"), [("3.4.4", False), ("2.1.6", False), ("4.3.1", True), ("4.9.4-rhel", True), ("10.0.0", True)]
)
def test_podman_is_4_or_newer(version: str, met: bool, programs: Path) -> None:
    program(programs, "podman", f"echo {version}")
    program(programs, "nft", "true")
    found = preflight._podman(LocalHost())
    assert (found.met, found.level, version in found.found) == (met, "must", True)
    assert bool(found.fix) is not met


@pytest.mark.parametrize(("nft", "met"), [(True, True), (False, False)])
def test_podman_5_needs_nft(programs: Path, monkeypatch: pytest.MonkeyPatch, nft: bool, met: bool) -> None:
    program(programs, "podman", "echo 5.4.2")
    monkeypatch.setattr(preflight.shutil, "which", lambda name: "/usr/sbin/nft" if nft and name == "nft" else None)
    found = preflight._podman(LocalHost())
    assert found.met is met
    assert met or found.fix == "apt-get install nftables"


def test_a_podman_that_does_not_work_says_why(programs: Path) -> None:
    program(programs, "podman", "echo 'no storage driver' >&2; exit 125")
    found = preflight._podman(LocalHost())
    assert (found.met, found.found) == (False, "no storage driver") and "podman info" in found.fix


def test_an_old_podman_is_refused_in_one_line_with_the_fix(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs, "podman", "echo 3.4.4")
    monkeypatch.setattr(preflight, "examine", lambda *_: [preflight._podman(LocalHost())])
    with pytest.raises(HostUnfit, match=r"3\.4\.4.*Ubuntu 24\.04") as caught:
        preflight.demand(Profile())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("installed", "version", "refused"),
    [
        (True, "3.4.4", True), (False, "3.4.4+ds1-1ubuntu1.22.04.3", True),
        (True, "4.3.1", False), (False, "4.9.3+ds1-1ubuntu0.2", False), (False, "1:5.4.2+ds1-2", False),
    ],
)  # fmt: skip
def test_setup_refuses_an_old_podman_before_anything_is_installed(
    installed: bool, version: str, refused: bool, programs: Path
) -> None:
    program(programs, "podman", f"echo podman version {version}")
    there = (
        'echo "install ok installed"'
        if installed
        else 'case "$*" in *" podman") exit 1;; *) echo "install ok installed";; esac'
    )
    program(programs, "dpkg-query", there)
    program(programs, "apt-cache", f"printf 'podman:\\n  Installed: (none)\\n  Candidate: {version}\\n'")
    program(programs, "apt-get", f'case "$1" in install) touch {programs}/installing; exit 1;; esac')
    program(programs, "sudo", '"$@"')
    # Python is too old: setup goes no further than the system's packages.
    env = {**os.environ, "PYTHON": "false", "STACKBOOK_BROWSER": ""}
    done = subprocess.run(
        ["sh", str(ROOT / "tools" / "setup.sh")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert ("is too old, the lab needs 4" in done.stderr) is refused and len(done.stderr.splitlines()) == 1
    assert (programs / "installing").exists() is (not refused and not installed)


def test_no_page_promises_a_release_with_an_old_podman() -> None:
    for name in ("README.md", "tools/setup.sh", "parameters/vms.example.yaml"):
        assert "22.04" not in (ROOT / name).read_text(encoding="utf-8"), name


class Machine:
    """What `os.uname` says, and the release."""

    sysname, release = "Linux", "6.1.0"

    def __init__(self, machine: str) -> None:
        self.machine = machine


@pytest.mark.parametrize(("machine", "met"), [("x86_64", True), ("aarch64", False)])
def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch, machine: str, met: bool) -> None:
    monkeypatch.setattr(preflight.os, "uname", lambda: Machine(machine))
    found = preflight._system(LocalHost())
    assert (found.met, found.level, bool(found.fix)) == (met, "must", not met)
