"""The commands of a chapter, from what a run has recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stackbook.app.command_script import script
from stackbook.config import chapters
from stackbook.core.errors import InputError

WRITE = """sh -c 'set -e; umask 077; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"' write /etc/stackbook/kubeadm.yaml 600"""
API = "this host, by the API"


def command(text: str, host: str = "k8s-master", rc: int = 0) -> dict[str, object]:
    return {"host": host, "command": text, "rc": rc, "seconds": 0.1}


def record(folder: Path, name: str, *commands: dict[str, object], chapter: str = "02-kubeadm") -> None:
    steps = [{"step": "init", "title": "kubeadm init builds the control plane", "commands": list(commands)}]
    (folder / name).mkdir()
    data = {"chapters": [{"chapter": chapter, "outcome": "passed", "steps": steps}]}
    (folder / name / "run.json").write_text(json.dumps(data), encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKBOOK_RUNS", str(tmp_path))
    return tmp_path


def test_what_was_typed_with_its_machine_and_each_once(runs: Path) -> None:
    get = command("kubectl get pods -o json", API)
    record(
        runs, "20261127T220058Z",
        command("test -s /etc/kubernetes/admin.conf", rc=1), command(WRITE),
        command("kubeadm init --config /etc/stackbook/kubeadm.yaml"),
        command("/root/.cache/stackbook/files/c457535b88cb5f15/istioctl install -y", "this host"), get, get,
        command("nc -z 192.168.98.3 2379", "k8s-node1", rc=1),
    )  # fmt: skip
    lines = list(script(chapters.find("02")))
    assert lines[0].startswith("# 02-kubeadm: ")
    assert "20261127T220058Z" in lines[1]
    assert lines[2:] == [
        "",
        "# init: kubeadm init builds the control plane",
        "# on k8s-master",
        "install -D -m 600 /dev/stdin /etc/stackbook/kubeadm.yaml",
        "kubeadm init --config /etc/stackbook/kubeadm.yaml",
        "# on this host",
        "istioctl install -y",
        "# on this host: stackbook used the API; this is the kubectl command for it",
        "kubectl get pods -o json",
        "# on k8s-node1",
        "nc -z 192.168.98.3 2379  # exit status 1",
    ]
    everything = list(script(chapters.find("02"), everything=True))
    assert everything.count("kubectl get pods -o json") == 2
    assert "test -s /etc/kubernetes/admin.conf  # exit status 1" in everything


def test_the_newest_run_that_executed_it_is_taken(runs: Path) -> None:
    record(runs, "20260101T000000Z", command("kubeadm init --old"))
    record(runs, "20260102T000000Z", command("kubeadm init --new"))
    record(runs, "20260103T000000Z", command("x"), chapter="03-flannel")
    (runs / "20260104T000000Z").mkdir()
    (runs / "20260105T000000Z").mkdir()
    (runs / "20260105T000000Z" / "run.json").write_text("{")
    assert "kubeadm init --new" in list(script(chapters.find("kubeadm")))


def test_without_a_run_the_way_to_one_is_named(runs: Path) -> None:
    with pytest.raises(InputError, match=r"no run in .* has executed 02-kubeadm — stackbook run --again --only 02"):
        list(script(chapters.find("02")))
