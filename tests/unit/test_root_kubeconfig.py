"""The scripts that handle root's kubeconfig on a machine that is not the lab's own, run by a real shell."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from stackbook.cluster.kubeadm import KEEP_KUBECONFIG, RESTORE_KUBECONFIG


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "admin.conf").write_text("kubeadm's\n")
    return tmp_path


def run(script: str, home: Path) -> str:
    text = script.replace("/etc/kubernetes/admin.conf", str(home / "admin.conf"))
    done = subprocess.run(
        ["sh", "-c", text], env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def files(home: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted((home / ".kube").iterdir()) if not p.name.endswith("sha256")}


def test_where_there_was_none_there_is_none_again(home: Path) -> None:
    assert run(KEEP_KUBECONFIG, home) == "changed\n"
    assert run(KEEP_KUBECONFIG, home) == ""
    config = home / ".kube" / "config"
    assert (config.read_text(), stat.S_IMODE(config.stat().st_mode)) == ("kubeadm's\n", 0o600)
    run(RESTORE_KUBECONFIG, home)
    assert list((home / ".kube").iterdir()) == []


def test_somebodys_own_is_kept_and_put_back(home: Path) -> None:
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text("theirs, current-context: kubernetes-admin@kubernetes\n")
    before = files(home)
    assert run(KEEP_KUBECONFIG, home) == "changed\n"
    assert files(home) == {"config": "kubeadm's\n", "config.before-stackbook": before["config"]}
    (home / "admin.conf").write_text("of the lab's next cluster\n")
    assert run(KEEP_KUBECONFIG, home) == "changed\n"
    assert files(home)["config.before-stackbook"] == before["config"]
    run(RESTORE_KUBECONFIG, home)
    assert files(home) == before


def test_what_was_changed_meanwhile_stays(home: Path) -> None:
    (home / ".kube").mkdir()
    (home / ".kube" / "config").write_text("theirs\n")
    run(KEEP_KUBECONFIG, home)
    (home / ".kube" / "config").write_text("merged by hand\n")
    run(RESTORE_KUBECONFIG, home)
    assert files(home) == {"config": "merged by hand\n", "config.before-stackbook": "theirs\n"}
