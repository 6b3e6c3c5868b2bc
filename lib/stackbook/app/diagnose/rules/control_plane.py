"""The control plane: its four static pods, starting with etcd."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.machine_probes import COMPONENTS
from stackbook.app.diagnose.rules.reading import newest, sections, unit
from stackbook.app.diagnose.snapshot import NOTHING, Machine, Snapshot

LAYER = "control plane"
_WEIGHTS = {"etcd": 0, "kube-apiserver": 2, "kube-controller-manager": 4, "kube-scheduler": 4}
_PHASES = {
    "etcd": "etcd local",
    "kube-apiserver": "control-plane apiserver",
    "kube-controller-manager": "control-plane controller-manager",
    "kube-scheduler": "control-plane scheduler",
}
_FLAG = r"unknown flag|unknown shorthand flag|invalid argument|flag provided but not defined"
_ERROR = r"(?i)error|fatal|panic|failed|refused"


def static_pods(snapshot: Snapshot) -> Iterator[Cause]:
    """Each of the four components has its manifest, and its process runs and reports that it is healthy."""
    machine = snapshot.control_plane
    if machine is None or not machine.text("server of kubeconfigs") or not machine["manifests"].ok:
        return
    manifests = machine.text("manifests").split()
    logs = sections(machine.text("component logs"))
    # Without the kubelet and containerd, which start them, these answers mean nothing.
    carried = _runs(machine, "containerd") and _runs(machine, "kubelet")
    broken: list[str] = []
    for name in COMPONENTS:
        if f"{name}.yaml" not in manifests:
            yield _without_manifest(snapshot, machine, name)
            broken.append(name)
            continue
        problem = _problem(machine, name)
        if not problem:
            continue
        said = newest(logs.get(name, ""), _FLAG)
        error = said or newest(logs.get(name, ""), _ERROR) or "its log has no error"
        below = [other for other in broken if _WEIGHTS[other] < _WEIGHTS[name]]
        broken.append(name)
        if said:
            yield Cause(f"{name}-flag", LAYER, f"{name} starts with a flag that it does not know", (problem, said),
                        _rewritten(snapshot, machine, name), weight=_WEIGHTS[name])  # fmt: skip
        else:
            yield Cause(f"{name}-failing", LAYER, f"{name} is not running, or not healthy", (problem, f"its log: {error}"),
                        _rewritten(snapshot, machine, name), follows=bool(below) or not carried,
                        weight=_WEIGHTS[name] + 1)  # fmt: skip


def _runs(machine: Machine, name: str) -> bool:
    return unit(machine, name).get("ActiveState") == "active"


def _without_manifest(snapshot: Snapshot, machine: Machine, name: str) -> Cause:
    return Cause(f"{name}-missing", LAYER, f"the manifest of {name} is missing, so the kubelet does not run it",
                 (f"/etc/kubernetes/manifests has no {name}.yaml",), _rewritten(snapshot, machine, name),
                 weight=_WEIGHTS[name])  # fmt: skip


def _rewritten(snapshot: Snapshot, machine: Machine, name: str) -> str:
    return snapshot.on(machine.name, f"kubeadm init phase {_PHASES[name]} --config /etc/stackbook/kubeadm.yaml")


def _problem(machine: Machine, name: str) -> str:
    """Why a component does not seem to work; empty if it seems to work."""
    processes = {line.strip() for line in machine.text("processes").splitlines()}
    if processes and name[:15] not in processes:
        return f"no process {name}"
    probe = {"etcd": "etcd health", "kube-apiserver": "API server"}.get(name, f"{name} healthz")
    answer = machine[probe]
    text = answer.out.strip()
    good = '"health":"true"' in text if name == "etcd" else "readyz check passed" in text or text == "ok"
    if good or answer is NOTHING:
        return ""
    failed = [line for line in text.splitlines() if line.startswith("[-]")]
    return (
        f"{name} does not report that it is healthy: {' '.join(failed) or text[:200] or answer.problem or 'no answer'}"
    )


def no_answer(snapshot: Snapshot) -> Iterator[Cause]:
    """The API server answers from here and from each machine."""
    if not snapshot.machines and snapshot.profile.target != "cluster":
        return
    started = [m for m in snapshot.up if m.text("server of kubeconfigs")]
    if not snapshot.cluster.reached and (started or snapshot.profile.target == "cluster"):
        yield Cause("api-server-silent", LAYER, "the API server does not answer", (snapshot.cluster.problem,),
                    snapshot.kubectl("get --raw '/readyz?verbose'"), follows=snapshot.profile.target != "cluster",
                    weight=9)  # fmt: skip
    for machine in started:
        answer = machine["API server"]
        if not answer.out.strip() and not machine.control_plane and snapshot.control_plane:
            yield Cause("api-server-unreachable", LAYER, f"{machine.name} does not reach the API server",
                        (f"curl https://{snapshot.profile.control_plane.address}:6443/readyz: "
                         f"{answer.problem or f'status {answer.rc}'}",),
                        snapshot.on(machine.name, f"curl -vk https://{snapshot.profile.control_plane.address}:6443/readyz"),
                        follows=True, weight=9)  # fmt: skip


def readiness(snapshot: Snapshot) -> Iterator[Cause]:
    """What the API server itself reports as not ready: etcd, or a hook after its start."""
    answer = snapshot.cluster.answers.get("readyz", NOTHING)
    failed = re.findall(r"^\[-\](\S+)", answer.out + "\n" + answer.err, re.MULTILINE)
    if failed:
        yield Cause("api-server-unready", LAYER, f"the API server reports that it is not ready: {', '.join(failed)}",
                    tuple(f"readyz: [-]{name}" for name in failed), snapshot.kubectl("get --raw '/readyz?verbose'"),
                    follows=True, weight=8)  # fmt: skip


RULES = (static_pods, no_answer, readiness)
