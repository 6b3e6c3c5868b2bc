"""A lab is stopped and started, saved and restored: with all that is in it, and with each way in which that can go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labtools import ROOT, Done, keep_evidence, left_on_this_host, stackbook
from stackbook.app import checks, reset, session
from stackbook.app.snapshots import manifest
from stackbook.app.snapshots.store import Store
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts
from stackbook.machines.providers.container_flags import _limits
from stackbook.machines.providers.podman import GONE, Embedded

pytestmark = [pytest.mark.live, pytest.mark.more]

PROFILE = """\
target: embedded
lab: sblife
nodes:
  - {name: first, address: 192.168.89.3}
  - {name: second, address: 192.168.89.4}
subnet: 192.168.89.0/24
gateway: 192.168.89.2
"""
STORE = Store("sblife")
CHAPTERS = ("01-machines", "02-kubeadm", "03-flannel", "05-istio")
STRANGER = "sblife-somebody"
FILES = ("/root/kept", "/var/lib/containerd/kept", "/var/lib/kubelet/kept")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab through chapter 05, with a container of somebody else's beside it that has a name like its own."""
    path = tmp_path_factory.mktemp("life") / "life.yaml"
    path.write_text(PROFILE)
    before = reset.snapshot()
    try:
        done = stackbook("run", "--to", "05", "--profile", str(path))
        if done.status:
            keep_evidence(done.output)
            pytest.fail(done.output[-4000:])
        image = podman("inspect", "--format", "{{.ImageName}}", "sblife-first").strip()
        podman("run", "-d", "--name", STRANGER, "--network", "none", *_limits(), image, "/bin/sleep", "infinity")
        yield path
        assert podman("inspect", "--format", "{{.State.Status}}", STRANGER).strip() == "running"
    finally:
        subprocess.run([*Embedded(Profile.load(path)).podman, "rm", "-f", "-t", "0", STRANGER], check=False)
        left = reset.reset(Profile.load(path), say=lambda text: None)
        shutil.rmtree(STORE.folder, ignore_errors=True)
    assert left == []
    assert left_on_this_host(path, before) == []


def podman(*words: str) -> str:
    command = [*Embedded(Profile()).podman, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def command(profile: Path, *words: str) -> Done:
    return stackbook(*words, "--profile", str(profile), timeout=600)


def good(profile: Path, *words: str) -> str:
    done = command(profile, *words)
    assert done.status == 0, done.output[-4000:]
    return done.output


def refused(profile: Path, *words: str) -> str:
    """A command that is bad input: status 2, one line, and the same containers as before."""
    before = Embedded(Profile.load(profile)).containers()
    done = command(profile, *words)
    assert done.status == 2, done.output[-3000:]
    assert done.output.startswith("stackbook: ") and len(done.output.splitlines()) == 1, done.output
    assert Embedded(Profile.load(profile)).containers() == before
    return done.output


def opened(profile: Path) -> Lab:
    return session.opened("05-istio", profile)


def healthy(profile: Path) -> None:
    """What every chapter left still holds."""
    for chapter in CHAPTERS:
        for check in checks.of(chapter):
            assert check.prove(opened(profile)), check.claim


def write(profile: Path, text: str) -> None:
    """Put data where it must not be lost: etcd, the machines' own disks, and both volumes."""
    lab = opened(profile)
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kept", "namespace": "default"},
        "data": {"is": text},
    }
    lab.kube.apply(data)
    for host in lab.machines.values():
        for path in FILES:
            host.write(path, text)


def seen(profile: Path) -> dict[str, Any]:
    """What must be the same: that data, what the machines are, and the pods."""
    lab = opened(profile)
    pods = lab.kube.json("get", "pods", "-n", "default")["items"]
    return {
        "etcd": lab.kube.json("get", "configmap", "kept", "-n", "default")["data"]["is"],
        "files": {n: [h.read(path) for path in FILES] for n, h in lab.machines.items()},
        "machines": {
            name: (
                [i.addresses for i in facts.INTERFACES.read(host) if i.name == "eth0"],
                [i.mac for i in facts.INTERFACES.read(host) if i.name == "eth0"],
                facts.PRODUCT_UUID.read(host),
                facts.MACHINE_ID.read(host),
                host.run(
                    [
                        "sh",
                        "-c",
                        "getcap -r /usr/bin /usr/lib 2>/dev/null; find /usr /opt -path /opt/stackbook -prune -o -perm -4000 -print | sort",
                    ]
                ).stdout,
            )
            for name, host in lab.machines.items()
        },
        "pods": sorted((p["metadata"]["name"], p["metadata"]["uid"]) for p in pods),
        "nodes": sorted((n["metadata"]["name"], n["metadata"]["uid"]) for n in lab.kube.nodes()),
    }


def states(profile: Path) -> set[str]:
    return set(Embedded(Profile.load(profile)).containers().values())


# stopping and starting


def test_a_stopped_lab_says_so_and_comes_back_with_all_that_is_in_it(profile: Path) -> None:
    write(profile, "before")
    before = seen(profile)
    began = time.monotonic()
    good(profile, "stop")
    stopped = time.monotonic() - began
    assert states(profile) == {"exited"}
    assert json.loads(good(profile, "status", "--json"))["stopped"] is True
    assert "the lab is stopped: stackbook start" in good(profile, "status")
    found = command(profile, "diagnose", "--json")
    assert found.status == 1
    cause = json.loads(found.output)["causes"][0]
    assert cause["name"] == "lab-stopped" and cause["fix"].startswith("stackbook start"), cause
    assert "is not running — stackbook start" in refused(profile, "stop")
    began = time.monotonic()
    said = good(profile, "start")
    started = time.monotonic() - began
    print(f"stop {stopped:.1f} s, start {started:.1f} s: {said}")
    assert seen(profile) == before
    healthy(profile)
    assert "runs: 2 nodes and" in good(profile, "start"), "started again, it changes nothing"
    done = good(profile, "run", "--to", "05")
    assert done.count("unchanged") >= 5 and "Nothing was changed" in done, done
    assert stopped < 40 and started < 120, "twice what is promised, and more: the host may be busy"


def test_a_run_starts_a_stopped_lab(profile: Path) -> None:
    good(profile, "stop")
    done = good(profile, "run", "--to", "05")
    assert "the lab is stopped: starting it" in done
    assert done.count("unchanged") >= 5, done
    healthy(profile)


def test_a_lab_whose_processes_were_lost_starts(profile: Path) -> None:
    """As after this host lost its power: podman believes that they run, and the rule of the host's firewall is gone."""
    provider = Embedded(Profile.load(profile))
    for node in provider.profile.nodes:
        ask = ("inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", provider.container(node.name))
        for pid in podman(*ask).split():
            os.kill(int(pid), signal.SIGKILL)
    until(lambda: states(profile) == {GONE}, what="the processes have gone", timeout=20)
    assert json.loads(good(profile, "status", "--json"))["stopped"] is True
    good(profile, "start")
    healthy(profile)


@contextlib.contextmanager
def a_run(lab: str) -> Iterator[None]:
    """Another process holds the run's lock; a process that this one starts would be taken for a part of its run."""
    script = f"import sys\nfrom stackbook.app.supervision import only_run\nwith only_run({lab!r}): print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == "\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


def test_a_command_under_a_run_is_refused(profile: Path) -> None:
    with a_run("sblife"):
        for words in (("stop",), ("start",), ("snapshot", "save", "x"), ("run", "--to", "01")):
            assert "another run uses the lab 'sblife'" in refused(profile, *words)


def test_what_was_never_made_is_refused(profile: Path, tmp_path: Path) -> None:
    other = tmp_path / "never.yaml"
    other.write_text(PROFILE.replace("sblife", "sbnever").replace(".89.", ".87."))
    for words in (("stop",), ("start",), ("snapshot", "save", "x")):
        assert "there is no lab 'sbnever' on this host" in refused(other, *words)
    assert not (paths.states() / "sbnever").exists()


# saving and restoring


@pytest.fixture(scope="module")
def saved(profile: Path) -> dict[str, Any]:
    """A snapshot `base` of the lab as it runs, and what was seen when it was saved."""
    write(profile, "saved")
    before = seen(profile)
    before["restarts"] = restarts(profile)
    said = good(profile, "snapshot", "save", "base")
    print(said)
    return before


def restarts(profile: Path) -> int:
    pods = opened(profile).kube.json("get", "pods", "-n", "default")["items"]
    return sum(s["restartCount"] for pod in pods for s in pod["status"]["containerStatuses"])


def without_restarts(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "restarts"}


def test_a_lab_goes_on_when_it_was_saved(profile: Path, saved: dict[str, Any]) -> None:
    assert states(profile) == {"running"}
    assert restarts(profile) == saved["restarts"], "the pods stood still, and nothing else"
    healthy(profile)
    files = list((STORE.folder / "base").iterdir())
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600} and len(files) == 8
    assert {stat.S_IMODE(f.stat().st_mode) for f in (STORE.folder, STORE.folder / "base")} == {0o700}
    listed = good(profile, "snapshot", "list")
    assert re.search(r"^base .* GB  00-preflight to 05-istio$", listed, re.MULTILINE), listed


def test_a_restored_lab_is_what_it_was(profile: Path, saved: dict[str, Any]) -> None:
    write(profile, "after")
    lab = opened(profile)
    lab.kube.kubectl("delete", "deployment", "--all", "-n", "default", "--wait=false")
    lab.machines["second"].run(["rm", "-rf", "/etc/kubernetes", "/etc/cni"])
    lab.machines["second"].run(["touch", "/root/new"])
    print(good(profile, "snapshot", "restore", "base"))
    assert seen(profile) == without_restarts(saved)
    assert not opened(profile).machines["second"].run(["test", "-e", "/root/new"], check=False).ok
    healthy(profile)
    done = good(profile, "run", "--to", "05")
    assert done.count("unchanged") >= 5 and "Nothing was changed" in done, done


def test_a_reset_keeps_snapshots_and_a_lab_comes_out_of_nothing(profile: Path, saved: dict[str, Any]) -> None:
    said = good(profile, "reset")
    assert f"its snapshots stay in {STORE.folder}: base" in said, said
    assert "as it was before" in said
    assert states(profile) == set()
    done = good(profile, "run", "--to", "05", "--from-snapshot")
    assert "the nearest snapshot is 'base'" in done and done.count("unchanged") >= 5, done
    assert seen(profile) == without_restarts(saved)
    healthy(profile)
    assert "no snapshot has more proved chapters" in good(profile, "run", "--to", "05", "--from-snapshot")


# what can go wrong


def copied(name: str) -> Path:
    """A copy of the snapshot whose files can be changed one by one."""
    target = STORE.folder / name
    shutil.copytree(STORE.folder / "base", target, copy_function=os.link)
    target.chmod(0o700)
    return target


def changed(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


def cut(folder: Path) -> None:
    file = folder / "second-kubelet.tar.zst"
    changed(file, file.read_bytes()[:-10])


def flip(folder: Path) -> None:
    file = folder / "second-kubelet.tar.zst"
    changed(file, file.read_bytes()[:-1] + b"\0")


def older(folder: Path) -> None:
    file = folder / manifest.FILE
    changed(file, json.dumps(json.loads(file.read_text()) | {"format": 0}).encode())


@pytest.mark.parametrize(
    ("harm", "said"),
    [(cut, "is damaged: second-kubelet.tar.zst has"), (flip, "is damaged: second-kubelet.tar.zst has changed"),
     (older, "has format 0, but this stackbook"), (lambda f: changed(f / manifest.FILE, b"{"), "is damaged: its manifest")],
    ids=["cut short", "one byte", "another version", "manifest"],
)  # fmt: skip
def test_a_bad_snapshot_is_refused_and_the_lab_stays(
    profile: Path, saved: dict[str, Any], harm: Any, said: str
) -> None:
    folder = copied("bad")
    try:
        harm(folder)
        ids = podman("ps", "-q", "--no-trunc", "--filter", "label=stackbook.lab=sblife")
        assert said in refused(profile, "snapshot", "restore", "bad")
        assert podman("ps", "-q", "--no-trunc", "--filter", "label=stackbook.lab=sblife") == ids
        assert STORE.restoring == ""
        assert "'bad'" in good(profile, "snapshot", "list") or harm in (cut, flip)
    finally:
        good(profile, "snapshot", "remove", "bad")


def test_names_are_checked(profile: Path, saved: dict[str, Any]) -> None:
    assert "there is a snapshot 'base' already" in refused(profile, "snapshot", "save", "base")
    assert "did you mean 'base'?" in refused(profile, "snapshot", "restore", "bse")
    assert "did you mean 'base'?" in refused(profile, "snapshot", "remove", "bse")
    assert "is not a valid name for a snapshot" in refused(profile, "snapshot", "save", "../x")


def test_a_disk_without_room_is_named_before_anything_is_done(profile: Path, saved: dict[str, Any]) -> None:
    aside = STORE.folder.with_name("sblife.aside")
    STORE.folder.rename(aside)
    STORE.folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", str(STORE.folder)], check=True)
    try:
        said = refused(profile, "snapshot", "save", "full")
        assert re.search(r"the snapshot needs \d+\.\d GB at .*, but only 0\.0 GB are free", said), said
        assert states(profile) == {"running"} and STORE.names() == []
    finally:
        subprocess.run(["umount", str(STORE.folder)], check=True)
        STORE.folder.rmdir()
        aside.rename(STORE.folder)


def interrupted(profile: Path, words: tuple[str, ...], when: str, number: signal.Signals, wait: float) -> int:
    """Run a command, and send it a signal some time after it has said something; returns its status."""
    run = subprocess.Popen(
        [sys.executable, "-m", "stackbook", *words, "--profile", str(profile)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert run.stdout is not None
        for line in run.stdout:
            if when in line:
                break
        else:
            pytest.fail(f"it never said {when!r}")
        time.sleep(wait)
        os.killpg(run.pid, number) if number == signal.SIGKILL else os.kill(run.pid, number)
        run.stdout.read()
        return run.wait(60)
    finally:
        if run.poll() is None:
            run.kill()
            run.wait(10)
        if run.stdout:
            run.stdout.close()


def test_an_interrupted_save_leaves_no_half(profile: Path, saved: dict[str, Any]) -> None:
    assert interrupted(profile, ("snapshot", "save", "half"), "are paused while", signal.SIGINT, 1) == 130
    assert states(profile) == {"running"}
    assert sorted(path.name for path in STORE.folder.iterdir()) == ["base"]
    healthy(profile)


def test_a_killed_save_is_put_right_by_a_start(profile: Path, saved: dict[str, Any]) -> None:
    assert interrupted(profile, ("snapshot", "save", "half"), "are paused while", signal.SIGKILL, 1) == -signal.SIGKILL
    assert states(profile) == {"paused"}
    assert STORE.names() == ["base"]
    cause = json.loads(command(profile, "diagnose", "--json").output)["causes"][0]
    assert cause["name"] == "machine-paused", cause
    good(profile, "start")
    assert states(profile) == {"running"}
    healthy(profile)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_an_interrupted_restore_says_how_it_goes_on(
    profile: Path, saved: dict[str, Any], number: signal.Signals
) -> None:
    status = interrupted(profile, ("snapshot", "restore", "base"), "recreating the machines", number, 3)
    assert status == (130 if number == signal.SIGINT else -number)
    for words in (("start",), ("run", "--to", "05"), ("snapshot", "save", "x")):
        assert "restore of the snapshot 'base' was interrupted" in refused(profile, *words)
    assert "was interrupted: stackbook snapshot restore base" in good(profile, "snapshot", "list")
    good(profile, "snapshot", "restore", "base")
    assert seen(profile) == without_restarts(saved)
    healthy(profile)


def test_a_stopped_lab_is_saved_as_it_is_and_snapshots_go(profile: Path, saved: dict[str, Any]) -> None:
    good(profile, "stop")
    assert "the lab is stopped: its disks are copied" in good(profile, "snapshot", "save", "off")
    assert states(profile) == {"exited"}
    good(profile, "snapshot", "restore", "off")
    healthy(profile)
    said = good(profile, "reset", "--snapshots")
    assert "snapshot 'base' is removed" in said and "snapshot 'off' is removed" in said, said
    assert not STORE.folder.exists()
