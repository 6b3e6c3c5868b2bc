"""What can go wrong: an interrupt, a machine that restarts, a step that fails, something broken behind a check."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from labtools import ROOT, stackbook
from stackbook import checks, kubeadm, paths
from stackbook.chapter import Lab
from stackbook.errors import StackbookError
from stackbook.parameters import Profile
from stackbook.providers.embedded import Embedded
from stackbook.step import Record
from stackbook.waiting import until

pytestmark = pytest.mark.live


def proof(lab: Lab, chapter: str, check: str) -> str:
    """The evidence of one check on the lab as it is now."""
    fresh = Lab(lab.chapter, lab.profile, lab.parameters)
    return next(c for c in checks.of(chapter) if c.id == check).prove(fresh)


def breaks(lab: Lab, chapter: str, check: str, harm: Callable[[], object], mend: Callable[[], object]) -> str:
    """Break something: the check must hold before, fail while it is broken, and hold again afterwards."""
    proof(lab, chapter, check)
    harm()
    try:
        with pytest.raises(StackbookError) as caught:
            proof(lab, chapter, check)
    finally:
        mend()
    until(lambda: proof(lab, chapter, check) or True, what=f"{check} holds again", timeout=90, every=1,
          tolerate=(StackbookError,))  # fmt: skip
    return str(caught.value)


def test_a_twin_is_noticed(lab: Lab) -> None:
    host = lab.machines["k8s-node1"]
    said = breaks(lab, "01-machines", "distinct", lambda: host.run(["hostname", "k8s-master"]),
                  lambda: host.run(["hostname", "k8s-node1"]))  # fmt: skip
    assert "share the hostname 'k8s-master'" in said


def test_forwarding_switched_off_is_noticed(lab: Lab) -> None:
    host = lab.machines["k8s-node1"]
    said = breaks(lab, "01-machines", "prepared", lambda: host.run(["sysctl", "-w", "net.ipv4.ip_forward=0"]),
                  lambda: host.run(["sysctl", "-w", "net.ipv4.ip_forward=1"]))  # fmt: skip
    assert "net.ipv4.ip_forward" in said


def test_a_scheduler_that_does_not_run_is_noticed(lab: Lab) -> None:
    host = lab.control_plane
    manifest = "/etc/kubernetes/manifests/kube-scheduler.yaml"

    def stop() -> None:
        host.run(["mv", manifest, "/root/kube-scheduler.yaml"])
        until(lambda: not host.run(["pgrep", "-x", "kube-scheduler"], check=False).ok, what="it is gone", timeout=60)

    said = breaks(
        lab, "02-kubeadm", "control-plane", stop, lambda: host.run(["mv", "/root/kube-scheduler.yaml", manifest])
    )
    assert "kube-scheduler" in said


def test_dns_that_does_not_answer_is_noticed(lab: Lab) -> None:
    host = lab.machines[lab.profile.nodes[-1].name]
    rule = ["-d", lab.profile.dns_address, "-p", "udp", "--dport", "53", "-j", "DROP"]
    said = breaks(lab, "03-flannel", "dns", lambda: host.run(["iptables", "-t", "raw", "-I", "OUTPUT", *rule]),
                  lambda: host.run(["iptables", "-t", "raw", "-D", "OUTPUT", *rule]))  # fmt: skip
    assert lab.profile.dns_address in said


def test_a_page_that_does_not_open_is_noticed(lab: Lab) -> None:
    saved = lab.kube.json("get", "virtualservices.networking.istio.io", "bookinfo")
    clean = {k: saved[k] for k in ("apiVersion", "kind", "spec")} | {
        "metadata": {"name": "bookinfo", "namespace": "default"}
    }

    def harm() -> None:
        lab.kube.delete(clean)
        until(lambda: "404" in lab.local.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
              f"{lab.ingress}/productpage"]).stdout, what="the route is gone", timeout=30)  # fmt: skip

    assert "404" in breaks(lab, "05-istio", "page", harm, lambda: lab.kube.apply(clean))


def test_images_of_another_content_are_noticed(lab: Lab) -> None:
    from stackbook.images import contents, lacks

    wanted = contents(lab.artifacts.bundle("apps").archive)
    host = lab.machines["k8s-node1"]
    assert lacks(host, wanted) == []
    name = next(iter(wanted))
    assert lacks(host, {**wanted, name: "sha256:" + "0" * 64}) == [name]


def test_a_second_init_and_join_do_nothing(lab: Lab) -> None:
    assert kubeadm.kubeadm_init(lab.control_plane, "this text is never used") == 0
    node = lab.machines["k8s-node1"]
    assert kubeadm.kubeadm_join(node, lab.control_plane, lab.profile, lab.images, cgroup_v1=lab.cgroup_v1) == 0


def test_a_restarted_worker_is_repaired_by_the_next_run(lab: Lab) -> None:
    provider = Embedded(lab.profile)
    subprocess.run([*provider.podman, "kill", provider.container("k8s-node1")], check=True, capture_output=True)
    done = stackbook("run", "--to", "05")
    assert done.status == 0, done.output[-4000:]
    assert "k8s-node1" in done.output
    for chapter in ("01-machines", "02-kubeadm", "03-flannel", "05-istio"):
        for check in checks.of(chapter):
            assert check.prove(Lab(lab.chapter, lab.profile, lab.parameters))


SMALL = """\
target: embedded
lab: sbtest
nodes:
  - {name: solo, address: 192.168.97.3}
subnet: 192.168.97.0/24
gateway: 192.168.97.2
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A lab of one machine beside the other, for what cannot be tried on the one that everybody uses."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_an_interrupted_run_keeps_its_record_and_goes_on(small: Path, lab: Lab) -> None:
    """Ctrl-C in the middle of kubeadm init; the next run continues; reset leaves the host as it was."""
    from stackbook import reset

    before = reset.snapshot()
    process = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "run", "--profile", str(small), "--to", "02"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "• init:" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130, rest
        assert "interrupted" in rest
        mine = [f for f in paths.runs().glob("2*") if "lab: sbtest" in (f / "profile.yaml").read_text()]
        folder = max(mine)
        assert (folder / "run.json").exists() and (folder / "02-kubeadm.ipynb").exists()
        assert any(e["event"] == "step-end" and e["step"] == "images" for e in Record(folder / "events.jsonl").events())
        children = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False)
        assert children.stdout == "", children.stdout
        again = stackbook("run", "--profile", str(small), "--to", "02")
        assert again.status == 0, again.output[-4000:]
        assert "01-machines   unchanged" in again.output
        solo = Embedded(Profile.load(small)).machines()["solo"]
        assert kubeadm.initialised(solo)
    finally:
        if process.poll() is None:
            process.kill()
        if process.stdout:
            process.stdout.close()
        done = stackbook("reset", "--profile", str(small))
    assert done.status == 0, done.output
    assert "as it was before" in done.output
    assert reset.compare(before, reset.snapshot()) == []


def test_something_left_behind_is_noticed_by_reset(small: Path, lab: Lab) -> None:
    from stackbook import reset

    assert stackbook("run", "--profile", str(small), "--to", "01").status == 0
    subprocess.run(["ip", "link", "add", "sbleft", "type", "dummy"], check=False)
    made = subprocess.run(["ip", "link", "show", "sbleft"], capture_output=True, check=False).returncode == 0
    if not made:
        subprocess.run(["ip", "link", "add", "sbleft", "type", "bridge"], check=True)
    try:
        done = stackbook("reset", "--profile", str(small))
        assert done.status == 1, done.output
        assert "interfaces: left over: sbleft" in done.output
    finally:
        subprocess.run(["ip", "link", "delete", "sbleft"], check=True)
    assert reset.reset(Profile.load(small), say=lambda text: None) == []


def test_a_failing_step_says_what_failed_and_blocks_what_comes_after(small: Path, lab: Lab) -> None:
    """The subnet is taken by the lab that runs: refused before anything is changed."""
    taken = small.with_name("taken.yaml")
    taken.write_text(SMALL.replace("sbtest", "sbtaken").replace("192.168.97", "192.168.98"))
    before = Embedded(Profile.load(taken)).containers()
    done = stackbook("run", "--profile", str(taken), "--to", "01")
    assert done.status == 2, done.output
    assert "subnet" in done.output and "choose another subnet" in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert Embedded(Profile.load(taken)).containers() == before == {}
