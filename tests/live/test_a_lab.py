"""The lab that the first chapters build, and what the commands say of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import canaries
import httpx
import pytest
from canaries import NAME
from labtools import ROOT, Built, stackbook
from stackbook.app import reset
from stackbook.lab.lab import Lab

pytestmark = pytest.mark.live


def test_the_first_run_passes_and_says_what_it_left(built: Built) -> None:
    if built.first is None:
        pytest.skip("the lab was there before the session")
    for chapter in ("00-preflight", "01-machines", "02-kubeadm", "03-flannel", "04-kubernetes", "05-istio"):
        assert re.search(rf"^{chapter} +passed", built.first.output, re.MULTILINE), built.first.output
    for line in ("make notebooks", "/productpage", "kubeconfig", "report.html"):
        assert line in built.first.output


def test_a_second_run_changes_nothing_and_says_so(lab: Lab) -> None:
    before = lab.kube.json("get", "pods,services,deployments,configmaps", "-A")
    done = stackbook("run", "--to", "05")
    assert done.status == 0, done.output
    assert "Nothing was changed" in done.output
    after = lab.kube.json("get", "pods,services,deployments,configmaps", "-A")

    def identity(data: dict) -> set[tuple[str, str]]:
        """Of what stays: namespaces that the chapters' experiments made are still being deleted meanwhile."""
        stays = ("default", "kube-system", "kube-flannel", "istio-system")
        kept = [i["metadata"] for i in data["items"] if i["metadata"]["namespace"] in stays]
        return {(m["uid"], str(m.get("generation"))) for m in kept}

    assert len(identity(before)) > 30
    assert identity(before) == identity(after)


def test_plan_changes_nothing(lab: Lab) -> None:
    before = reset.snapshot()
    done = stackbook("plan", "--to", "05")
    assert done.status == 0, done.output
    assert done.output.count("nothing to do") == 6, done.output
    other = stackbook("plan", "--to", "05", "-p", "flannel_backend", "host-gw")
    assert "03-flannel: would run" in other.output
    assert "does not hold yet: the pod network runs the profile's backend" in other.output
    assert reset.compare(before, reset.snapshot()) == []


def test_status_kubeconfig_and_the_labs_own_tools(lab: Lab) -> None:
    status = json.loads(stackbook("status", "--json").output)
    assert set(status["nodes"].values()) == {"Ready"}
    assert set(status["istio"].values()) == {"available"}
    path = stackbook("kubeconfig").output.strip()
    assert path == str(lab.kubeconfig)
    assert Path(path).stat().st_mode & 0o077 == 0
    assert "k8s-node1" in stackbook("kubectl", "--", "get", "nodes").output
    assert (
        "istio" in stackbook("istioctl", "--", "version").output.lower()
        or "client version" in stackbook("istioctl", "--", "version").output
    )


def test_a_page_is_open_as_long_as_the_command_runs(lab: Lab) -> None:
    assert re.search(r"^bookinfo +05 +ready ", stackbook("open").output, re.MULTILINE)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stackbook", "open", "bookinfo"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/productpage", address), address
        assert "<title>Simple Bookstore App</title>" in httpx.get(address, trust_env=False, timeout=30).text
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False, timeout=5)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "--only", "flanel"], "did you mean 'flannel'"),
        (["run", "--profile", "embeded"], "did you mean 'embedded'"),
        (["run", "-p", "flanel_backend", "udp"], "did you mean 'flannel_backend'"),
        (["run", "-p", "flannel_backend", "vlan"], "'vxlan', 'host-gw' or 'udp'"),
        (["run", "-p", "kubernetes_version", "1.9.9"], "1.9.9"),
        (["run", "-p", "pod_cidr", "10.1.0.0/12"], "write 10.0.0.0/12"),
        (["run", "--from", "05", "--to", "02"], "swap --from and --to"),
        (["shell", "k8s-nod1"], "did you mean 'k8s-node1'"),
        (["fetch", "kubctl"], "kubectl"),
        (["runn"], "did you mean 'run'"),
    ],
)
def test_bad_input_is_refused_in_one_line_with_status_2(lab: Lab, args: list[str], said: str) -> None:
    before = {p["metadata"]["uid"] for p in lab.kube.pods("default")}
    done = stackbook(*args)
    assert done.status == 2, done.output
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1, done.output
    assert {p["metadata"]["uid"] for p in lab.kube.pods("default")} == before


def test_memory_of_the_whole_lab(lab: Lab) -> None:
    """At most 3.5 GiB, and 2.5 GiB more once the chapters 10 to 12 have left Prometheus, Jaeger and Elasticsearch."""
    known = {"prometheus", "jaeger", "elasticsearch"}
    items = lab.kube.json("get", "deployments,statefulsets", "--all-namespaces")["items"]
    limit = 6.0 if known & {item["metadata"]["name"] for item in items} else 3.5
    total = 0
    for host in lab.machines.values():
        sizes = host.run(["ps", "-eo", "pss="], check=False)
        total += sum(int(line) for line in sizes.lines if line.strip().isdigit()) * 1024
    assert 0.5 < total / (1 << 30) < limit


def test_canaries_are_planted(lab: Lab) -> None:
    """Two secrets for whoever prints what he should not; `test_z_reset` searches for them in all that was left."""
    canaries.plant(lab)
    held = canaries.held(lab)
    assert any(NAME in where for where in held)
    assert any(re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", value) for value in held.values())
    assert {"kubeconfig", "k8s-master /etc/kubernetes/pki/ca.key"} <= set(held)
