"""The commands of a chapter, from what a run has recorded."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from stackbook.app.command_script import script
from stackbook.config import chapters
from stackbook.core.errors import InputError
from stackbook.core.redact import Secret
from stackbook.core.results import Result
from stackbook.lab import step as steps
from stackbook.lab import step_line
from stackbook.lab.typed_commands import typed
from stackbook.machines.transports import LocalHost

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
        "install -D -m 600 /dev/null /etc/stackbook/kubeadm.yaml",
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


def test_a_file_that_is_written_or_applied_is_shown_whole(runs: Path) -> None:
    applied = "kubectl apply --server-side -f -"
    record(
        runs, "20260101T000000Z",
        {**command(WRITE), "input": "kind: ClusterConfiguration\n"},
        {**command("sh -c 'cat > /etc/hosts'"), "input": "127.0.0.1 localhost\nEOF\n"},
        {**command(applied, API), "input": "kind: A\n"}, {**command(applied, API), "input": "kind: B\n"},
        {**command("kubectl exec -i load -- base64 -d", API), "input": "aGFsbG8="},
    )  # fmt: skip
    assert list(script(chapters.find("02")))[4:] == [
        "# on k8s-master",
        "install -D -m 600 /dev/stdin /etc/stackbook/kubeadm.yaml <<'EOF'",
        "kind: ClusterConfiguration",
        "EOF",
        "cat > /etc/hosts <<'EOF_'",
        "127.0.0.1 localhost",
        "EOF",
        "EOF_",
        "# on this host: stackbook used the API; this is the kubectl command for it",
        f"{applied} <<'EOF'",
        "kind: A",
        "EOF",
        f"{applied} <<'EOF'",
        "kind: B",
        "EOF",
        "kubectl exec -i load -- base64 -d <<'EOF'",
        "aGFsbG8=",
        "EOF",
    ]


def test_what_is_printed_can_be_typed(runs: Path) -> None:
    """Each line is a command of a shell: an empty file, a file below the home folder, an image, a separator of Unicode's own."""
    home = str(Path.home())
    ours = WRITE.replace("/etc/stackbook/kubeadm.yaml 600", f"{home}/.local/state/stackbook/x/operator.yaml 644")
    blob = "/opt/stackbook/blobs/sha256/da/da0d"
    background = (
        "systemd-run --quiet --collect --unit=stackbook-import-da0dec97f76a ctr -n k8s.io images import " + blob
    )
    record(
        runs, "20260101T000000Z",
        {**command(WRITE), "input": "a: b\u2028c\n"}, command(WRITE.replace("kubeadm.yaml", "kubeadm-init.done")),
        command("ctr -n k8s.io images ls"), command(background), command(f"ctr -n k8s.io images import {blob}"),
        command("systemd-run --quiet sleep 1"), command("sh -c 'cat > /etc/motd'"),
        {**command(ours, "this host"), "input": "kind: IstioOperator"},
    )  # fmt: skip
    lines = list(script(chapters.find("02")))[4:]
    assert lines == [
        "# on k8s-master",
        "install -D -m 600 /dev/stdin /etc/stackbook/kubeadm.yaml <<'EOF'",
        "a: b\u2028c",
        "EOF",
        "install -D -m 600 /dev/null /etc/stackbook/kubeadm-init.done",
        f"ctr -n k8s.io images import {blob}",
        "cat > /etc/motd < /dev/null",
        "# on this host",
        "install -D -m 644 /dev/stdin ~/.local/state/stackbook/x/operator.yaml <<'EOF'",
        "kind: IstioOperator",
        "EOF",
    ]
    assert subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        "iptables -D INPUT -p tcp -j STACKBOOK-TRIAL", "iptables -t nat -F X", "kubectl delete pod x", "kubectl -n a apply -f -",
        "kill -CONT 7", "pkill -CONT -x flanneld", "rm -f /x", "ip link set a up", "ip -n b route add default via 10.0.0.1",
        "bridge fdb del aa dev b",
        "systemctl restart kubelet", "istioctl install -f x -y", "kubectl rollout restart deployment/x", "kubeadm reset -f",
    ],
)  # fmt: skip
def test_a_change_is_shown_each_time_and_what_only_reads_once(change: str) -> None:
    """A rule that is removed, added and removed again must not stay on the learner's machine."""
    commands = [command(change), command("ip -j route"), command("nc -z a 1"), command(change), command("ip -j route")]
    assert list(typed(commands)) == ["# on k8s-master", change, "ip -j route", "nc -z a 1", change]


@pytest.mark.parametrize(
    "reading", ["kubectl get pods -l app=delete", "iptables -S", "ip link show", "kubectl logs x -c apply-it"]
)
def test_what_only_reads_is_not_taken_for_a_change(reading: str) -> None:
    assert list(typed([command(reading), command(reading)])) == ["# on k8s-master", reading]


def test_a_long_file_is_cut_on_a_page() -> None:
    long = {**command("kubectl apply -f -"), "input": "".join(f"line {n}\n" for n in range(30))}
    assert list(typed([long], longest=5))[-3:] == [
        "line 4", "# … and 25 more lines: `stackbook commands` prints them", "EOF",
    ]  # fmt: skip
    assert list(typed([long]))[1:] == ["kubectl apply -f -"]


def recorded(tmp_path: Path, stdin: str | Secret) -> dict[str, object]:
    """What a step keeps of a command with this input."""
    current = steps.Step("one", "a step", "80-test", steps.Record(tmp_path / "events"))
    LocalHost(observers=[current.observe]).run(["cat"], stdin=stdin)
    return current.commands[0]


def test_a_secret_that_a_command_reads_is_not_kept(tmp_path: Path) -> None:
    assert recorded(tmp_path, "plain")["input"] == "plain"
    assert recorded(tmp_path, Secret("hunter2-and-more"))["input"] == "***"
    assert recorded(tmp_path, "token: hunter2-and-more\n")["input"] == "token: ***\n"
    assert "hunter2" not in repr(Result(("cat",), 0, "", "", 0.0, given="hunter2-and-more"))


def test_the_line_of_a_step_unfolds_to_its_commands() -> None:
    shown = step_line.block("✓ init: <kubeadm>", [command("kubeadm init --config=<file>")])
    assert "<summary>✓ init: &lt;kubeadm&gt;</summary>" in shown
    assert "# on k8s-master\nkubeadm init --config=&lt;file&gt;</pre></details>" in shown
    many = step_line.block("✓ a: b", [command(f"ip route show table {n}") for n in range(400)])
    assert "# … and 251 more lines: `stackbook commands` prints them</pre>" in many
    assert len(many) < 20_000
