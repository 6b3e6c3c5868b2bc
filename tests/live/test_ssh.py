"""The SSH transport against a real sshd: that of the lab's worker machine, started for these tests and stopped again."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackbook.core.errors import CommandFailed, TransportError
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts, identity, operations
from stackbook.machines.ssh_host import SSHHost
from stackbook.machines.transports import Host

pytestmark = pytest.mark.live
KEYS = "/root/.ssh/authorized_keys"


@pytest.fixture(scope="module")
def worker(lab: Lab) -> Host:
    return lab.machines[lab.profile.nodes[-1].name]


@pytest.fixture(scope="module")
def remote(lab: Lab, worker: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHHost]:
    folder = tmp_path_factory.mktemp("ssh")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    worker.run(["ssh-keygen", "-A"])
    worker.write(KEYS, key.with_suffix(".pub").read_text(), mode=0o600)
    worker.run(["systemctl", "start", "ssh"])
    node = lab.profile.nodes[-1]
    host = SSHHost(name=node.name, address=node.address, key=key, known_hosts=folder / "known_hosts")
    try:
        until(lambda: host.run(["true"], timeout=15).ok, what="sshd answers", timeout=30, tolerate=(TransportError,))
        yield host
    finally:
        subprocess.run(
            ["ssh", *host._options(), "-O", "exit", f"root@{node.address}"],
            capture_output=True,
            timeout=20,
            check=False,
        )
        worker.run(["systemctl", "stop", "ssh"])
        worker.run(["rm", "-f", KEYS])


def test_facts_read_the_same_as_from_inside(remote: SSHHost, worker: Host) -> None:
    assert identity.identity(worker.name, remote) == identity.identity(worker.name, worker)
    for fact in (facts.ROUTES, facts.INTERFACES, facts.MACHINE_ID, facts.CGROUP):
        assert fact.read(remote) == fact.read(worker)


def test_words_arrive_as_they_are(remote: SSHHost) -> None:
    odd = ["a b", "$HOME", "; false", "'\"", "*", "ü—网"]
    assert remote.run(["printf", "%s\\n", *odd]).lines == odd
    assert remote.run(["sh", "-c", 'echo "$LAB"'], env={"LAB": "x y"}).stdout == "x y\n"
    assert remote.run(["cat"], stdin="from here\n").stdout == "from here\n"


def test_a_failing_command_a_negative_answer_and_a_broken_transport_differ(remote: SSHHost) -> None:
    assert remote.run(["false"], check=False).rc == 1
    with pytest.raises(CommandFailed, match=r"(?i)no such file"):
        remote.run(["cat", "/nowhere"])
    closed = dataclasses.replace(remote, port=1, name="closed")
    with pytest.raises(TransportError, match="closed"):
        closed.run(["true"], timeout=20)


def test_files_go_there_and_come_back(remote: SSHHost, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)) * 4096)
    try:
        remote.put(local, "/var/tmp/stackbook-test/file", mode=0o640)
        said = remote.run(["stat", "-c", "%a %s", "/var/tmp/stackbook-test/file"]).stdout.split()
        assert said == ["640", str(local.stat().st_size)]
        remote.write("/var/tmp/stackbook-test/text", "söme text\n", mode=0o600)
        assert remote.read("/var/tmp/stackbook-test/text") == "söme text\n"
    finally:
        remote.run(["rm", "-rf", "/var/tmp/stackbook-test"])


def test_a_secret_goes_by_standard_input_and_on_no_command_line(remote: SSHHost) -> None:
    word = Secret("s3cret-w0rd")
    result = remote.run(["cat"], stdin=word.reveal(), secret=True)
    assert result.reveal() == word.reveal() and "s3cret" not in f"{result!r} {result.command}"
    for argv in (["echo", word], ["echo", word.reveal()]):
        with pytest.raises((TypeError, AssertionError), match="standard input"):
            remote.run(argv)


def test_an_operation_that_is_done_is_not_done_again(remote: SSHHost) -> None:
    wanted = operations.file("/var/tmp/stackbook-operation", "as it should be\n")
    try:
        assert len(operations.apply(remote, wanted)) > 0
        assert operations.pending(remote, wanted) == []
    finally:
        remote.run(["rm", "-f", "/var/tmp/stackbook-operation"])


def test_a_machine_with_another_key_is_refused(remote: SSHHost, worker: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True, timeout=30)
    known = tmp_path / "known_hosts"
    kind, blob = other.with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"{remote.address} {kind} {blob}\n")
    stranger = dataclasses.replace(remote, known_hosts=known, port=22, name="stranger", user="root")
    subprocess.run(
        ["ssh", *remote._options(), "-O", "exit", f"root@{remote.address}"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    with pytest.raises(TransportError, match=r"(?i)host key|verification"):
        stranger.run(["true"], timeout=20)


def test_after_a_restart_of_sshd_the_next_command_goes_through(remote: SSHHost, worker: Host) -> None:
    worker.run(["systemctl", "restart", "ssh"])
    until(
        lambda: remote.run(["true"], timeout=15).ok, what="sshd answers again", timeout=30, tolerate=(TransportError,)
    )
