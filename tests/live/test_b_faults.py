"""What can go wrong: an interrupt, a machine that restarts, a step that fails, something broken behind a check."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from labtools import sample, stackbook
from stackbook.app import checks, proving
from stackbook.cluster import kubeadm, own_namespaces
from stackbook.core.errors import InputError, StackbookError, TransportError
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts
from stackbook.machines.providers.podman import GONE, Embedded
from test_c_nbval import COMPARED, executed

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


@pytest.mark.parametrize("name", sample(["tour", "walk", "logging-of-somebody"], "tour"))
def test_a_namespace_of_somebody_elses_is_refused_and_stays(lab: Lab, name: str) -> None:
    kube = lab.kube
    kube.kubectl("create", "namespace", name)
    try:
        kube.kubectl("create", "configmap", "theirs", "-n", name, "--from-literal=here=yes")
        with pytest.raises(InputError, match=f"namespace '{name}' that this lab did not make"):
            lab.enter(own_namespaces.temporary(kube, name))
        own_namespaces.delete(kube, name, timeout=30)
        found = kube.json("get", "namespace", name)
        assert "deletionTimestamp" not in found["metadata"]
        assert kube.json("get", "configmap", "theirs", "-n", name)["data"] == {"here": "yes"}
    finally:
        kube.kubectl("delete", "namespace", name, "--wait=true", timeout=90)


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
    said = breaks(lab, "03-flannel", "dns", lambda: host.run([*facts.IPTABLES, "-t", "raw", "-I", "OUTPUT", *rule]),
                  lambda: host.run([*facts.IPTABLES, "-t", "raw", "-D", "OUTPUT", *rule]))  # fmt: skip
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
    from stackbook.cluster.image_import import contents, lacks

    wanted = contents(lab.artifacts.bundle("apps").archive)
    host = lab.machines["k8s-node1"]
    assert lacks(host, wanted) == []
    name = next(iter(wanted))
    assert lacks(host, {**wanted, name: "sha256:" + "0" * 64}) == [name]


def test_a_second_init_and_join_do_nothing(lab: Lab) -> None:
    assert kubeadm.kubeadm_init(lab.control_plane, "this text is never used") == 0
    node = lab.machines["k8s-node1"]
    assert kubeadm.kubeadm_join(node, lab.control_plane, lab.profile, lab.images.kubeadm, cgroup_v1=lab.cgroup_v1) == 0


def test_a_chapter_that_changes_something_when_it_is_executed_again_is_noticed(lab: Lab, tmp_path: Path) -> None:
    """01 is proved on every lab by now; with one line more in a file that it writes, it puts that right, and says so.

    Here, and not beside other chapters: settings of the network are loaded again.
    """
    chapter = next(c for c in COMPARED if c.number == "01")
    assert proving.proved(lab.profile, chapter, {})
    lab.machines["k8s-node1"].run(["sh", "-c", "echo '# one line more' >> /etc/modules-load.d/k8s.conf"])
    assert executed(chapter, tmp_path) == {"kernel": 1}


@pytest.mark.more
def test_a_machine_whose_processes_podman_believes_to_run_is_started_again(lab: Lab) -> None:
    """As on a host that was put back from a snapshot: nobody has written down that the container ended."""
    provider = Embedded(lab.profile)
    name = provider.container("k8s-node1")
    ask = [*provider.podman, "inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", name]
    conmon, first = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.split()
    provider.machines()["k8s-node1"].run(["touch", "/root/kept"])
    os.kill(int(conmon), signal.SIGKILL)
    os.kill(int(first), signal.SIGKILL)
    until(lambda: provider.containers()[name] == GONE, what="the processes have gone", timeout=20)
    with pytest.raises(TransportError, match="podman reports it as running"):
        provider.machine(lab.profile.nodes[1]).run(["true"])
    said: list[str] = []
    assert provider.provision(say=said.append) == 1
    assert said == [f"starting k8s-node1 again (it was {GONE})"]
    provider.machines()["k8s-node1"].run(["rm", "/root/kept"])  # with what was on it


@pytest.mark.more
def test_a_restarted_worker_is_repaired_by_the_next_run(lab: Lab) -> None:
    provider = Embedded(lab.profile)
    subprocess.run([*provider.podman, "kill", provider.container("k8s-node1")], check=True, capture_output=True)
    done = stackbook("run", "--to", "05")
    assert done.status == 0, done.output[-4000:]
    assert "k8s-node1" in done.output
    for chapter in ("01-machines", "02-kubeadm", "03-flannel", "05-istio"):
        for check in checks.of(chapter):
            assert check.prove(Lab(lab.chapter, lab.profile, lab.parameters))
