"""A pod of two containers: what they share, and who restarts one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbook.cluster.manifests import render
from stackbook.core.waiting import until
from stackbook.lessons.flannel.packet_path import container_pid
from stackbook.lessons.kubernetes.myapp import NAMESPACE

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def two(lab: Lab) -> list[dict[str, Any]]:
    """What the two containers of a pod share, read from the kernel and tested by use (K56, K57, K58, K69)."""
    lab.kube.kubectl(
        "apply", "-n", NAMESPACE, "-f", "-", stdin=render("tour.yaml", image_tools=lab.images.reference("tools"))
    )
    lab.kube.wait_pods(NAMESPACE, "app=two", count=1, timeout=60)
    pod = lab.kube.pods(NAMESPACE, "app=two")[0]
    host = lab.machines[pod["spec"]["nodeName"]]
    tasks = {line.split()[0]: line.split()[1] for line in host.run(["ctr", "-n", "k8s.io", "tasks", "ls"]).lines[1:]}
    pids = {
        c["name"]: tasks[c["containerID"].removeprefix("containerd://")] for c in pod["status"]["containerStatuses"]
    }
    rows = []
    for kind, meaning in (("net", "addresses and ports"), ("ipc", "shared memory"), ("uts", "host name"),
                          ("mnt", "file system"), ("pid", "process numbers")):  # fmt: skip
        seen = {host.run(["readlink", f"/proc/{pid}/ns/{kind}"]).stdout.strip() for pid in pids.values()}
        rows.append({"namespace": kind, "what it holds": meaning, "shared by a and b": len(seen) == 1})
    localhost = lab.kube.exec(NAMESPACE, "two", "wget", "-qO-", "http://localhost:8080/page", container="b")
    volume = lab.kube.exec(NAMESPACE, "two", "cat", "/shared/page", container="b")
    rows.append({"namespace": "–", "what it holds": "b reads a's page on localhost",
                 "shared by a and b": localhost.stdout == "written by a\n"})  # fmt: skip
    rows.append({"namespace": "–", "what it holds": "b reads a's file in the volume",
                 "shared by a and b": volume.stdout == "written by a\n"})  # fmt: skip
    return rows


def restarted(lab: Lab) -> dict[str, int]:
    """Kill a container's process on its node: the kubelet restarts it (K53). Returns the restarts before and after."""
    pod = lab.kube.pods(NAMESPACE, "app=two")[0]
    host = lab.machines[pod["spec"]["nodeName"]]
    before = _restarts(pod)
    host.run(["kill", "-KILL", str(container_pid(host, pod))])
    until(
        lambda: _restarts(lab.kube.pods(NAMESPACE, "app=two")[0]) > before,
        what="the kubelet to restart the container",
        timeout=60,
        every=0.3,
    )
    lab.kube.wait_pods(NAMESPACE, "app=two", count=1, timeout=30)
    return {"before": before, "after": _restarts(lab.kube.pods(NAMESPACE, "app=two")[0])}


def _restarts(pod: dict[str, Any]) -> int:
    return sum(int(c["restartCount"]) for c in pod["status"].get("containerStatuses", []))
