"""Measure labs with more and more machines, then one with more and more pods. Each lab has a name and a subnet of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackbook.app import reset
from stackbook.app.scale import load, probes
from stackbook.cluster import own_namespaces
from stackbook.cluster.problems import pod_problem
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError, StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.lab.step import now
from stackbook.machines.providers.podman import Embedded

MACHINES = (2, 4, 8)
PODS = (50, 100, 150, 200)
SPARE = 2.0
"""GiB that stay free: with less, no more pods are started."""
_NAME, _SUBNET = "sbscale", "192.168.87"
_RUN, _PODS_READY = 1800.0, 900.0


def profile_of(machines: int) -> dict[str, Any]:
    """The profile of a lab with so many machines."""
    names = ["k8s-master", *(f"k8s-node{number}" for number in range(1, machines))]
    return {
        "target": "embedded", "lab": _NAME, "subnet": f"{_SUBNET}.0/24", "gateway": f"{_SUBNET}.2",
        "nodes": [{"name": name, "address": f"{_SUBNET}.{number}"} for number, name in enumerate(names, 3)],
    }  # fmt: skip


def measure(machines: Sequence[int], pods: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Build and remove a lab for each number of machines; the last one gets the pods before it is removed.

    Raises:
        InputError: a lab of this name exists; nothing was changed.
        StackbookError: a lab did not come up; with its output.
    """
    by_machines, by_pods, ended = [], [], ""
    with tempfile.TemporaryDirectory(prefix="stackbook-scale-") as folder:
        for number in machines:
            path = Path(folder) / f"{number}.yaml"
            path.write_text(yaml.safe_dump(profile_of(number)), encoding="utf-8")
            profile = Profile.load(str(path))
            if Embedded(profile).containers():
                raise InputError(f"the lab {profile.lab!r} exists", fix=f"stackbook reset --profile {path}")
            try:
                by_machines.append(_lab(path, number))
                say(f"{number} machines: {by_machines[-1]}")
                if number == machines[-1]:
                    for wanted in pods:
                        row, ended = _with_pods(Lab.open("05-istio", path), wanted, by_machines[-1]["free GiB"])
                        by_pods.append(row)
                        say(f"{row['pods']} pods: {row}")
                        if ended:
                            say(ended)
                            break
            finally:
                reset.reset(profile, say=lambda text: None)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "time": now(), "machines": by_machines, "pods": by_pods, "ended": ended,
        "host": {"processors": os.cpu_count(), "memory GiB": round(memory, 1), "kernel": platform.release().split("-")[0],
                 "system": platform.freedesktop_os_release().get("PRETTY_NAME", "")},
    }  # fmt: skip


def _lab(path: Path, number: int) -> dict[str, Any]:
    free, begin = probes.memory(), time.monotonic()
    argv = [sys.executable, "-m", "stackbook", "run", "--profile", str(path), "--to", "05"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_RUN)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise StackbookError(f"{number} machines did not come up:\n{(done.stdout + done.stderr)[-3000:]}")
    lab = Lab.open("05-istio", path)
    found = probes.everything(lab)
    record = json.loads((paths.runs() / "latest" / "run.json").read_text(encoding="utf-8"))
    chapters = {str(chapter["chapter"]): float(chapter["seconds"]) for chapter in record["chapters"]}
    ready = sum(chapters[name] for name in ("00-preflight", "01-machines", "02-kubeadm", "03-flannel"))
    return {"machines": number, "seconds to 03": round(ready), "seconds to 05": round(seconds),
            "GiB": round(free - found["free GiB"], 2), **found}  # fmt: skip


def _with_pods(lab: Lab, wanted: int, free: float) -> tuple[dict[str, Any], str]:
    """One row for so many pods, and why there will be no more; empty if there will."""
    kube = lab.kube
    own_namespaces.create(kube, load.NAMESPACE)
    kube.kubectl("label", "namespace", load.NAMESPACE, "istio-injection=enabled", "--overwrite")
    image = lab.images.reference("echo")
    before, begin, ended = probes.pushes(lab), time.monotonic(), ""
    for group in range(wanted // load.GROUP):
        kube.apply(load.manifest(group, image=image))
    try:
        until(lambda: _ready(lab) >= wanted or probes.memory() < SPARE, what=f"{wanted} pods to be Ready", timeout=_PODS_READY,
              every=2, last=lambda: f"{_ready(lab)} are; {_cause(lab)}")  # fmt: skip
    except WaitTimeout as error:
        ended = f"{wanted} pods: {error}"
    seconds = time.monotonic() - begin
    if probes.memory() < SPARE:
        ended = f"less than {SPARE:.0f} GiB of memory are free: no more pods"
    found = probes.everything(lab)
    push = probes.push_seconds(before, probes.pushes(lab))
    row = {"pods": _ready(lab), "seconds to Ready": round(seconds), "GiB": round(free - found["free GiB"], 2),
           "push s": push, **found}  # fmt: skip
    return row, ended


def _ready(lab: Lab) -> int:
    """How many of the pods are Ready."""
    items = lab.kube.json("get", "deployments", "-n", load.NAMESPACE)["items"]
    return sum(int(item.get("status", {}).get("readyReplicas", 0)) for item in items)


def _cause(lab: Lab) -> str:
    """Why the first pod that is not Ready is not; or that there is none."""
    pods = lab.kube.json("get", "pods", "-n", load.NAMESPACE)["items"]
    causes = (f"{pod['metadata']['name']}: {problem}" for pod in pods if (problem := pod_problem(pod)))
    return next(causes, "the others were not created")
