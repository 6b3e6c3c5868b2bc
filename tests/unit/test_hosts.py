from __future__ import annotations

import gc
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stackbook.core.errors import CommandFailed, TransportError, WaitTimeout
from stackbook.core.locks import born
from stackbook.core.waiting import beside, until
from stackbook.machines import transports
from stackbook.machines.ssh_host import SSHHost
from stackbook.machines.transports import ContainerHost, LocalHost


def test_a_failing_command_is_not_a_broken_transport() -> None:
    host = LocalHost()
    with pytest.raises(CommandFailed, match="status 3") as caught:
        host.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert "stderr: err" in str(caught.value)
    assert "stdout: out" in str(caught.value)
    assert host.run(["sh", "-c", "exit 3"], check=False).rc == 3
    with pytest.raises(TransportError, match="could not be started"):
        host.run(["/no/such/program"])


def test_a_deadline_ends_the_command_and_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    with pytest.raises(WaitTimeout, match="timed out after"):
        LocalHost().run(["sh", "-c", f"echo begun; (sleep 2; touch {marker}) & wait"], timeout=0.3)
    time.sleep(2.2)
    assert not marker.exists()


def test_environment_and_input() -> None:
    assert LocalHost().run(["sh", "-c", "echo $A; cat"], env={"A": "1 2"}, stdin="x\n").stdout == "1 2\nx\n"


def test_files(tmp_path: Path) -> None:
    host = LocalHost()
    host.write(str(tmp_path / "a b" / "c"), "text'\n", mode=0o600)
    assert host.read(str(tmp_path / "a b" / "c")) == "text'\n"
    assert (tmp_path / "a b" / "c").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "a b").iterdir()] == ["c"]
    host.put(tmp_path / "a b" / "c", str(tmp_path / "d" / "e"), mode=0o755)
    assert (tmp_path / "d" / "e").stat().st_mode & 0o777 == 0o755


def test_container_and_ssh_commands_are_built_without_a_shell_in_between() -> None:
    container = ContainerHost(name="n", container="lab-n")
    container._first = (os.getpid(), born(os.getpid()))
    argv = container._argv(["ls", "a b"], {"K": "v"}, True)
    assert argv[:3] == ["nsenter", "-t", str(os.getpid())]
    assert argv[-3:] == ["K=v", "ls", "a b"]
    assert "-i" in argv[argv.index("env") :]  # nothing of this host's environment goes along
    remote = SSHHost(name="n", address="192.0.2.1", user="ubuntu")._argv(["ls", "a b; rm"], {}, False)
    assert remote[-1] == "sudo -n env ls 'a b; rm'"


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContainerHost:
    """A container that podman says runs as process 77, and a /proc in which it does."""
    fake = tmp_path / "podman"
    fake.write_text("#!/bin/sh\necho 77 c0ffee\n")
    fake.chmod(0o755)
    process = tmp_path / "proc" / "77"
    process.mkdir(parents=True)
    (process / "stat").write_text("77 (systemd) S " + " ".join(str(field) for field in range(4, 30)) + "\n")
    (process / "cgroup").write_text("1:cpu:/libpod_parent/libpod-c0ffee/init.scope\n")
    monkeypatch.setattr(transports, "_PROC", tmp_path / "proc")
    return ContainerHost(name="n", container="lab-n", podman=(str(fake),))


def test_a_machine_that_was_started_again_is_looked_up_again(container: ContainerHost) -> None:
    container._first = (77, "another start")
    assert not container.alive()
    assert container._pid() == 77
    assert container.alive()


@pytest.mark.parametrize("now", ["", "1:cpu:/\n", "1:cpu:/libpod_parent/libpod-another/init.scope\n"])
def test_a_process_that_is_not_the_machines_is_never_entered(container: ContainerHost, now: str) -> None:
    process = transports._PROC / "77" / "cgroup"
    process.write_text(now) if now else process.unlink()
    with pytest.raises(TransportError, match=r"podman reports it as running.*stackbook run"):
        container.run(["true"], check=False)


def test_a_container_that_does_not_run_is_a_broken_transport(tmp_path: Path) -> None:
    fake = tmp_path / "podman"
    fake.write_text("#!/bin/sh\necho 'Error: no container with name lab-n' >&2\nexit 125\n")
    fake.chmod(0o755)
    with pytest.raises(TransportError, match="no container with name"):
        ContainerHost(name="n", container="lab-n", podman=(str(fake),)).run(["true"], check=False)


def test_until_says_what_it_last_saw_and_why() -> None:
    with pytest.raises(WaitTimeout, match=r"the moon.*last seen: a cheese; likely cause: the milk") as caught:
        until(
            lambda: False, what="the moon", timeout=0.05, every=0.01, last=lambda: "a cheese", cause=lambda: "the milk"
        )
    assert caught.value.seconds >= 0.05


def test_until_stops_at_once_at_what_it_does_not_tolerate() -> None:
    calls = []

    def check() -> bool:
        calls.append(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        until(check, what="x", timeout=5)
    assert len(calls) == 1
    with pytest.raises(WaitTimeout, match="last seen: broken"):
        until(check, what="x", timeout=0.05, every=0.01, tolerate=(ValueError,))


def test_commands_run_side_by_side(tmp_path: Path) -> None:
    """Each of three commands waits until the two others have begun."""
    script = 'touch "$1/$2"; for n in $(seq 400); do [ "$(ls "$1" | wc -l)" = 3 ] && exit 0; sleep 0.05; done; exit 1'
    with ThreadPoolExecutor(3) as pool:
        done = pool.map(lambda n: LocalHost().run(["sh", "-c", script, "sh", str(tmp_path), n], check=False), "abc")
    assert [result.rc for result in done] == [0, 0, 0]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_what_runs_beside_a_block_has_ended_with_it(error: type[BaseException] | None) -> None:
    looks: list[int] = []

    def work(ended: threading.Event) -> None:
        while not ended.wait(0.001):
            looks.append(1)

    try:
        with beside(work, name="looking"):
            until(lambda: len(looks) > 2, what="it has looked", timeout=5, every=0.01)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as caught:
        assert type(caught) is error
    assert "looking" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.slow
def test_a_command_whose_output_somebody_else_still_holds_is_given_up_and_reaped() -> None:
    """`systemd-run --pipe` hands its output to a unit, which goes on when it is killed."""
    script = "import subprocess, time; subprocess.Popen(['sleep', '9'], start_new_session=True); time.sleep(30)"
    start = time.monotonic()
    with pytest.raises(WaitTimeout):
        LocalHost().run([sys.executable, "-c", script], timeout=0.5)
    assert time.monotonic() - start < 15
    gc.collect()  # a child that was not reaped warns as it is collected, and every warning is an error here
