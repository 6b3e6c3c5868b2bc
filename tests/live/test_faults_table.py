"""Faults at random and on purpose: after each, the next `stackbook run` ends Ready, or names the true cause.

What came out goes into docs/faults.md where STACKBOOK_PUBLISH is set. On a lab of its own, beside any other.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import plants
import pytest
from labtools import ROOT, Done, keep_evidence, left_on_this_host, stackbook
from stackbook.app import reset, session
from stackbook.config.profile import Profile
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts
from stackbook.machines.providers.podman import Embedded

pytestmark = [pytest.mark.live, pytest.mark.more]

PROFILE = """\
target: embedded
lab: sbfaults
nodes:
  - {name: first, address: 192.168.91.3}
  - {name: second, address: 192.168.91.4}
subnet: 192.168.91.0/24
gateway: 192.168.91.2
"""
SINGLE = (
    PROFILE.replace("sbfaults", "sbsignal")
    .replace("  - {name: second, address: 192.168.91.4}\n", "")
    .replace(".91.", ".90.")
)
SEED, MOMENTS = 20200924, int(os.environ.get("STACKBOOK_MOMENTS", "50"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEXT = ("run", "--to", "05")


@dataclass(frozen=True)
class Row:
    """One fault and what came of it.

    Attributes:
        fault: in words.
        outcome: "Ready", or the cause that was named.
        seconds: until then, from the fault on.
    """

    fault: str
    outcome: str
    seconds: float


ROWS: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def published() -> Iterator[None]:
    """The table of this run, once all of its tests are over."""
    listed = ["podman", "ps", "-q", "--filter", "label=stackbook.lab"]
    beside = len(subprocess.run(listed, capture_output=True, text=True, check=True, timeout=60).stdout.split())
    yield
    if os.environ.get("STACKBOOK_PUBLISH"):
        host = {"date": f"{date.today()}", "processors": os.cpu_count(), "beside": beside}
        run = {**host, "rows": [asdict(row) for row in ROWS]}
        (ROOT / "bench" / "faults.json").write_text(json.dumps(run, indent=1) + "\n")
        subprocess.run([sys.executable, str(ROOT / "tools" / "faults.py")], check=True)


def small(folder: Path, text: str) -> Path:
    path = folder / "profile.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of two machines through chapter 05, taken away at the end; this host is then as it was."""
    before = reset.snapshot()
    path = small(tmp_path_factory.mktemp("faults"), PROFILE)
    try:
        done = stackbook(*NEXT, "--profile", str(path))
        assert done.status == 0, done.output[-4000:]
        yield session.opened("05-istio", path)
    finally:
        assert reset.reset(Profile.load(path), say=lambda text: None) == []
    assert left_on_this_host(path, before) == []


def again(lab: Lab, profile: Path, fault: str, began: float) -> Done:
    """The next run, and its row."""
    done = stackbook(*NEXT, "--profile", str(profile))
    lines = [line.strip() for line in done.output.splitlines() if line.strip().startswith(("✗", "stackbook:"))] or [
        done.output[-300:]
    ]
    causes = [line for line in lines if ": " in line]  # a step's own line has its name and its seconds only
    said = [line.strip() for line in done.output.splitlines() if line.strip().startswith("stderr: ")]
    outcome = "Ready" if done.status == 0 else ": ".join([(causes or lines)[0], *(s[8:] for s in said[:1])])
    ROWS.append(Row(fault, outcome, round(time.monotonic() - began, 1)))
    if done.status:
        keep_evidence(done.output, kube=lab.kube)
    return done


def healthy(lab: Lab) -> None:
    """All nodes and pods are Ready, asked anew."""
    fresh = Lab(lab.chapter, lab.profile, lab.parameters)
    fresh.kube.wait_nodes([node.name for node in lab.profile.nodes], timeout=120)
    fresh.kube.wait_pods("default", "app in (productpage,details,reviews,ratings)", count=6, timeout=120)


def kill(machine: str, program: str) -> Callable[[Lab], object]:
    """SIGKILL for each process of that name on a machine, or on all."""

    def act(lab: Lab) -> None:
        chosen = [host for name, host in lab.machines.items() if machine in (name, "all")]
        killed = [host.run(["pkill", "-KILL", "-x", program], check=False).ok for host in chosen]
        assert any(killed), f"no {program} runs on {machine}"

    return act


def stop_machines(*names: str) -> Callable[[Lab], object]:
    def act(lab: Lab) -> None:
        provider = Embedded(lab.profile)
        for name in names:
            subprocess.run([*provider.podman, "kill", provider.container(name)], check=True, capture_output=True)

    return act


def restart_machine(name: str) -> Callable[[Lab], object]:
    def act(lab: Lab) -> None:
        provider = Embedded(lab.profile)
        subprocess.run(
            [*provider.podman, "restart", "-t", "10", provider.container(name)],
            check=True,
            capture_output=True,
            timeout=90,
        )

    return act


def in_a_pod(namespace: str, target: str, program: str) -> Callable[[Lab], object]:
    """SIGKILL for the first process of a pod, seen from its machine."""

    def act(lab: Lab) -> None:
        killed = [host.run(["pkill", "-KILL", "-x", program], check=False).ok for host in lab.machines.values()]
        assert any(killed), f"nobody runs {program} for {namespace}/{target}"

    return act


def cut(lab: Lab) -> None:
    """No packet between the machines for 20 s; then the network is whole again."""
    host = lab.machines["second"]
    other = lab.profile.nodes[0].address
    rule = ["-s", other, "-j", "DROP"]
    host.run([*facts.IPTABLES, "-t", "raw", "-I", "PREROUTING", *rule])
    time.sleep(20)
    host.run([*facts.IPTABLES, "-t", "raw", "-D", "PREROUTING", *rule])


FAULTS: dict[str, Callable[[Lab], object]] = {
    "kubelet killed on both machines": kill("all", "kubelet"),
    "containerd killed on both machines": kill("all", "containerd"),
    "etcd killed": kill("first", "etcd"),
    "API server killed": kill("first", "kube-apiserver"),
    "istiod killed": in_a_pod("istio-system", "istiod", "pilot-discovery"),
    "every Envoy killed": kill("all", "envoy"),
    "flanneld killed on both machines": kill("all", "flanneld"),
    "the worker restarts": restart_machine("second"),
    "the control plane restarts": restart_machine("first"),
    "the worker loses its power": stop_machines("second"),
    "both machines lose their power": stop_machines("second", "first"),
    "no network between the machines for 20 s": cut,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_run_ends_ready(second: Lab, fault: str, tmp_path: Path) -> None:
    profile = small(tmp_path, PROFILE)
    began = time.monotonic()
    FAULTS[fault](second)
    done = again(second, profile, fault, began)
    assert done.status == 0, done.output[-4000:]
    healthy(second)


def test_an_expired_certificate_is_named(second: Lab, tmp_path: Path) -> None:
    """The API server shows a certificate that ended a year ago."""
    profile = small(tmp_path, PROFILE)
    began = time.monotonic()
    with plants.an_expired_certificate(second):
        until(lambda: not second.kube.ready(), what="the API server is asked in vain", timeout=90)
        done = again(second, profile, "the API server's certificate has expired", began)
    assert done.status == 1, done.output[-3000:]
    assert "expired" in done.output, done.output[-3000:]
    until(second.kube.ready, what="the API server to answer again", timeout=120)
    healthy(second)


def test_a_corrupt_cache_is_noticed_and_fetched_again(second: Lab, tmp_path: Path) -> None:
    """A program in the cache is cut short: it is made or fetched again, and what was there is not run."""
    entry = second.artifacts.path("kube-flannel.yml")
    whole = entry.read_bytes()
    began = time.monotonic()
    entry.chmod(0o644)
    entry.write_bytes(whole[: len(whole) // 2])
    done = again(second, small(tmp_path, PROFILE), "a file in the cache is cut short", began)
    assert done.status == 0, done.output[-3000:]
    assert second.artifacts.path("kube-flannel.yml").read_bytes() == whole


def kernel_of(run: subprocess.Popen[str]) -> int:
    """The kernel that a run has started; 0 before that."""
    found = subprocess.run(
        ["pgrep", "-P", str(run.pid), "-f", "ipykernel"], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0]) if found.stdout.strip() else 0


def test_a_kernel_that_dies_is_named(second: Lab, tmp_path: Path) -> None:
    profile = small(tmp_path, PROFILE)
    began = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "run", "--profile", str(profile), "--only", "05", "--again"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: kernel_of(run), what="the run has a kernel", timeout=60, every=0.2)
        time.sleep(3)
        os.kill(kernel_of(run), signal.SIGKILL)
        said, _ = run.communicate(timeout=180)
    finally:
        if run.poll() is None:
            run.kill()
    assert run.returncode == 1, said[-3000:]
    assert "kernel" in said.lower(), said[-3000:]
    done = again(second, profile, "the kernel of a chapter killed", began)
    assert done.status == 0, done.output[-3000:]
    healthy(second)


def test_a_run_that_is_killed_goes_on(second: Lab, tmp_path: Path) -> None:
    """SIGKILL: nothing can be written down any more; the next run finds its way."""
    profile = small(tmp_path, PROFILE)
    began = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "run", "--profile", str(profile), "--only", "05", "--again"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    time.sleep(8)
    run.kill()
    run.wait(10)
    done = again(second, profile, "`stackbook run` itself killed (SIGKILL)", began)
    assert done.status == 0, done.output[-3000:]
    left = subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True, text=True, check=False).stdout
    assert left == "", "what the killed run had started goes on"
    healthy(second)


def test_signals_at_seeded_moments(tmp_path: Path) -> None:
    """Ctrl-C, SIGTERM and SIGHUP in turn, at random moments of runs through 02; each run goes on where the last one ended.

    Where one gets through, its lab is proved Ready and taken away, and the next begins from nothing.
    """
    profile = small(tmp_path, SINGLE)
    draw = random.Random(SEED)
    before, came_through, began = reset.snapshot(), 0, time.monotonic()
    command = [sys.executable, "-m", "stackbook", "run", "--profile", str(profile), "--to", "02"]
    try:
        for number in range(MOMENTS):
            which, moment = SIGNALS[number % len(SIGNALS)], draw.uniform(0.5, 18)
            log = tmp_path / f"{number}.log"
            with log.open("w") as sink:
                run = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True)
                try:
                    run.wait(moment)
                except subprocess.TimeoutExpired:
                    os.kill(run.pid, which)
                    run.wait(120)
            said = log.read_text()
            where = f"{which.name} after {moment:.1f} s (moment {number}): {said[-2500:]}"
            ended = (
                run.returncode == -which and "report:" in said
            )  # it was over, and Python gives signals back at its end
            assert run.returncode in (0, 130) or ended, where
            assert "Traceback" not in said, where
            left = subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True, text=True, check=False).stdout
            assert left == "", f"processes go on after {where}"
            if run.returncode != 130:
                came_through += 1
                _ready(profile)
                assert stackbook("reset", "--profile", str(profile)).status == 0
        _ready(profile)
    finally:
        left_over = reset.reset(Profile.load(profile), say=lambda text: None)
    assert left_over == []
    assert left_on_this_host(profile, before) == []
    seconds = round(time.monotonic() - began, 1)
    ROWS.append(Row(f"Ctrl-C, SIGTERM, SIGHUP at {MOMENTS} seeded moments of runs through 02", "Ready", seconds))


def _ready(profile: Path) -> None:
    """The next run goes on through 03, which brings the pod network: without it, no node is Ready."""
    done = stackbook("run", "--profile", str(profile), "--to", "03")
    assert done.status == 0, done.output[-4000:]
    Lab.open("03-flannel", profile).kube.wait_nodes(["first"], timeout=120)
