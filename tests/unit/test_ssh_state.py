"""What a reset gives back on a machine that is not the lab's own: its scripts run by a real shell, on a root folder of the test's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from stackbook.core.results import Result
from stackbook.machines.providers import ssh_state
from stackbook.machines.transports import Host

NAMES = {"k8s-master": "10.0.0.3", "k8s-node1": "10.0.0.4"}
LAB = "10.0.0.3 k8s-master\n10.0.0.4 k8s-node1\n"


class Machine:
    """Runs commands on this host, with /root, /etc and /var/lib below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc").mkdir()
        (root / "root").mkdir()
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    def run(self, argv: Sequence[str], *, check: bool = True, stdin: str = "") -> Result:
        words = [re.sub(r"(?<![\w.}])(--)?(/(root|etc|var/lib))(?=/|\b)", rf"\1{self.root}\2", word) for word in argv]
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=check, timeout=10, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.stderr == "" or not check, done.stderr
        return Result(tuple(argv), done.returncode, done.stdout, done.stderr, 0.0)

    def hosts(self, text: str = "") -> str:
        path = self.root / "etc/hosts"
        if text:
            path.write_text(text)
        return path.read_text()

    def make(self, name: str, text: str = "x") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tree(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.make("var/lib/somebody")
    return made


def as_host(machine: Machine) -> Host:
    return cast(Any, machine)


def work(machine: Machine) -> None:
    """What chapters 01 to 05 leave."""
    machine.hosts(machine.hosts() + LAB)
    for name in (
        "root/istio/bin/istioctl",
        "root/.kube/cache/discovery/x",
        "root/.config/fish/completions/kubectl.fish",
    ):
        machine.make(name)
    (machine.root / "etc/kubernetes/pki").mkdir(parents=True)


def test_an_untouched_machine_is_as_before(machine: Machine) -> None:
    before, table = machine.tree(), machine.hosts()
    ssh_state.remember(as_host(machine), "lab")
    work(machine)
    ssh_state.remember(as_host(machine), "lab")  # the next run keeps the first note
    ssh_state.give_back(as_host(machine), "lab", NAMES)
    assert (machine.tree(), machine.hosts()) == (before, table)


def test_what_was_there_or_came_meanwhile_stays(machine: Machine) -> None:
    machine.make("root/istio/bin/istioctl", "theirs")
    machine.make("root/.kube/config", "theirs")
    ssh_state.remember(as_host(machine), "lab")
    work(machine)
    machine.make("root/.config/other", "theirs")
    machine.make("etc/kubernetes/kubelet.conf", "theirs")
    machine.hosts(machine.hosts() + "10.9.9.9 printer\n")
    ssh_state.give_back(as_host(machine), "lab", NAMES)
    assert machine.hosts() == "127.0.0.1 localhost\n10.9.9.9 printer\n"
    left = machine.tree()
    assert left >= {"root/istio/bin/istioctl", "root/.kube/config", "root/.config/other", "etc/kubernetes/kubelet.conf"}
    assert not left & {"root/.kube/cache", "root/.config/fish", "etc/kubernetes/pki", "var/lib/stackbook"}


def test_a_machine_without_a_host_table_is_given_back(machine: Machine) -> None:
    """It was not: the note was cut short, and the reset took it for none. The table itself is of a package, and stays."""
    (machine.root / "etc/hosts").unlink()
    before = machine.tree()
    ssh_state.remember(as_host(machine), "lab")
    machine.hosts("127.0.0.1 localhost\n")
    work(machine)
    ssh_state.give_back(as_host(machine), "lab", NAMES)
    assert machine.tree() == before | {"etc/hosts"}
    assert machine.hosts() == "127.0.0.1 localhost\n"


def test_a_note_that_cannot_be_written_is_an_error(machine: Machine) -> None:
    (machine.root / "etc/hosts").unlink()
    (machine.root / "etc/hosts").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        ssh_state.remember(as_host(machine), "lab")
    assert not (machine.root / "var/lib/stackbook/lab").exists()


def test_without_a_note_nothing_is_removed(machine: Machine) -> None:
    work(machine)
    before, table = machine.tree(), machine.hosts()
    ssh_state.give_back(as_host(machine), "lab", NAMES)
    assert (machine.tree(), machine.hosts()) == (before, table)


def test_another_labs_note_stays(machine: Machine) -> None:
    ssh_state.remember(as_host(machine), "other")
    ssh_state.remember(as_host(machine), "lab")
    ssh_state.give_back(as_host(machine), "lab", NAMES)
    assert (machine.root / "var/lib/stackbook/other/hosts").is_file()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10.0.0.3 k8s-master # mine\n", "10.0.0.3 k8s-master # mine\n"),
        ("192.168.1.9 k8s-node1 node\n127.0.0.1 localhost\n", "192.168.1.9 k8s-node1 node\n127.0.0.1 localhost\n"),
        (LAB, LAB),
    ],
    ids=["a comment", "another address", "the same lines"],
)
def test_lines_with_the_labs_names_come_back(before: str, after: str) -> None:
    replaced = [line for line in before.splitlines() if not set(line.split("#")[0].split()[1:]) & set(NAMES)]
    current = before if before == LAB else "\n".join([*replaced, ""]).lstrip("\n") + LAB
    assert ssh_state.host_table(current, before, NAMES) == after
