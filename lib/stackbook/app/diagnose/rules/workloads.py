"""Workloads: pods that do not run, and why; Services without pods; pods that a quota or a webhook refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import since
from stackbook.app.diagnose.snapshot import NOTHING, Snapshot, dig, log_name, named, space
from stackbook.cluster.problems import pod_problem

LAYER = "workloads"
RECENT = 90.0
"""Seconds; a failure that is older has been fixed, otherwise the kubelet would have tried again."""
_IMAGE = ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError")
_SYSTEM = ("kube-system", "kube-flannel", "istio-system")


def warnings(snapshot: Snapshot, item: Mapping[str, Any], *reasons: str) -> list[tuple[float, str]]:
    """Time and text of an object's warnings with one of these reasons, newest last."""
    uid = dig(item, "metadata", "uid", default="")
    found = []
    for event in snapshot.cluster.items("warnings"):
        if dig(event, "involvedObject", "uid") == uid and event.get("reason") in reasons:
            time = (
                event.get("lastTimestamp") or dig(event, "series", "lastObservedTime") or event.get("eventTime") or ""
            )
            found.append((since(str(time)), " ".join(str(event.get("message", "")).split())[:300]))
    return sorted(found)


def unscheduled(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Name and reason of each pod that no node accepts."""
    found = []
    for pod in snapshot.cluster.items("pods"):
        for condition in dig(pod, "status", "conditions", default=[]):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                found.append((f"{space(pod)}/{named(pod)}", str(condition.get("message", ""))[:300]))
    return found


def pending(snapshot: Snapshot) -> Iterator[Cause]:
    """Each pod has a node."""
    for name, why in unscheduled(snapshot):
        claim = "claim" in why.lower()
        explained = claim or ("taint" in why and "nsufficient" not in why)
        namespace, _, pod = name.partition("/")
        yield Cause("pod-unscheduled", LAYER, f"no node accepts {name}", (why,),
                    snapshot.kubectl(f"-n {namespace} describe pod {pod}"), follows=explained, weight=2)  # fmt: skip


def _states(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = dig(pod, "status", default={})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def containers(snapshot: Snapshot) -> Iterator[Cause]:
    """Each container has its image and its configuration, and keeps running."""
    for pod in snapshot.cluster.items("pods"):
        for state in _states(pod):
            cause = _waiting(snapshot, pod, state) or _ended(snapshot, pod, state)
            if cause:
                yield cause
                break


def _waiting(snapshot: Snapshot, pod: Mapping[str, Any], state: Mapping[str, Any]) -> Cause | None:
    reason = str(dig(state, "state", "waiting", "reason", default=""))
    said = " ".join(str(dig(state, "state", "waiting", "message", default="")).split())[:300]
    who = f"{space(pod)}/{named(pod)}"
    look = snapshot.kubectl(f"-n {space(pod)} describe pod {named(pod)}")
    if reason in _IMAGE:
        return Cause("image-missing", LAYER, f"{who} has no image", (f"{state['name']}: {reason}: {said}", state["image"]),
                     look, weight=1)  # fmt: skip
    if reason in _CONFIG:
        return Cause("container-config", LAYER, f"a container of {who} cannot be created", (f"{reason}: {said}",), look,
                     weight=1)  # fmt: skip
    return None


def _killed(
    snapshot: Snapshot, pod: Mapping[str, Any], state: Mapping[str, Any], end: float
) -> list[tuple[float, str]]:
    """The failed probes for which a container was killed, newest last.

    A container that has just started also fails its first probes: failures after its last exit did not kill it.
    """
    uid, mark, found = dig(pod, "metadata", "uid", default=""), f"{{{state['name']}}}", []
    for event in snapshot.cluster.items("warnings"):
        of = dig(event, "involvedObject", default={})
        text = " ".join(str(event.get("message", "")).split())[:300]
        if of.get("uid") != uid or event.get("reason") != "Unhealthy" or mark not in of.get("fieldPath", mark):
            continue
        first, last = (since(str(event.get(key) or "")) for key in ("firstTimestamp", "lastTimestamp"))
        if re.search(r"(?:Liveness|Startup) probe failed", text) and state.get("restartCount", 0) and first <= end + 1:
            found.append((last, text))
    return sorted(found)


def _ended(snapshot: Snapshot, pod: Mapping[str, Any], state: Mapping[str, Any]) -> Cause | None:
    """Why a container keeps exiting: memory, a probe, or the program itself."""
    ended = dig(state, "lastState", "terminated") or dig(state, "state", "terminated") or {}
    killed = _killed(snapshot, pod, state, since(str(ended.get("finishedAt", ""))))
    late = max([since(str(ended.get("finishedAt", ""))), *(w[0] for w in killed[-1:])])
    bad = ended.get("reason") == "OOMKilled" or ended.get("exitCode", 0) or killed
    often = state.get("restartCount", 0) >= 2 or killed or not dig(state, "state", "running")
    if not bad or not often or snapshot.time - late > RECENT or dig(pod, "metadata", "deletionTimestamp"):
        return None
    who, name = f"{space(pod)}/{named(pod)}", state["name"]
    seen = (
        f"{name}: {ended.get('reason', 'ended')}, status {ended.get('exitCode')}, {state.get('restartCount')} restarts"
    )
    logs = snapshot.kubectl(f"-n {space(pod)} logs {named(pod)} -c {name} --previous --tail=20")
    follows = space(pod) in _SYSTEM
    if ended.get("reason") == "OOMKilled":
        return Cause("out-of-memory", LAYER, f"{who} is killed because it needs more memory than its limit", (seen,),
                     snapshot.kubectl(f"-n {space(pod)} get pod {named(pod)} -o jsonpath='{{..limits.memory}}'"),
                     weight=1)  # fmt: skip
    if killed:
        return Cause("probe-failing", LAYER, f"{who} is restarted because its probe fails", (seen, killed[-1][1]),
                     snapshot.kubectl(f"-n {space(pod)} describe pod {named(pod)}"), follows=follows, weight=1)  # fmt: skip
    log = snapshot.cluster.answers.get(log_name(space(pod), named(pod), name), NOTHING).out.strip().splitlines()
    said = (f"its last log line: {log[-1][:300]}",) if log else ()
    return Cause("crash-loop", LAYER, f"{who} keeps exiting", (seen, *said), logs, follows=follows, weight=1)


def stuck(snapshot: Snapshot) -> Iterator[Cause]:
    """Each pod's sandbox and mounts can be created; other pods that are not ready come last."""
    for pod in snapshot.cluster.items("pods"):
        if dig(pod, "metadata", "deletionTimestamp") or not (problem := pod_problem(pod)):
            continue
        who = f"{space(pod)}/{named(pod)}"
        look = snapshot.kubectl(f"-n {space(pod)} describe pod {named(pod)}")
        mounts = warnings(snapshot, pod, "FailedMount", "FailedAttachVolume")
        sandbox = warnings(snapshot, pod, "FailedCreatePodSandBox")
        if mounts and not dig(pod, "status", "containerStatuses", 0, "state", "running"):
            yield Cause(
                "mount-missing", LAYER, f"a volume of {who} cannot be mounted", (mounts[-1][1],), look, weight=1
            )
        elif sandbox and snapshot.time - sandbox[-1][0] < RECENT:
            yield Cause("sandbox-failing", "pod network", f"the sandbox of {who} cannot be created", (sandbox[-1][1],), look, follows=True,
                        weight=7)  # fmt: skip
        else:
            probes = warnings(snapshot, pod, "Unhealthy")
            seen = (problem, *(text for _, text in probes[-1:]))
            yield Cause("pod-not-ready", LAYER, f"{who} is not ready", seen, look, follows=True, weight=5)


def refused(snapshot: Snapshot) -> Iterator[Cause]:
    """Nothing refuses a workload's pods: no quota, webhook, or other rule."""
    for item in snapshot.cluster.items("deployments"):
        for condition in dig(item, "status", "conditions", default=[]):
            said = " ".join(str(condition.get("message", "")).split())[:400]
            if condition["type"] != "ReplicaFailure" or condition["status"] != "True":
                continue
            who = f"{space(item)}/{named(item)}"
            if "exceeded quota" in said:
                yield Cause("quota-exceeded", LAYER, f"a quota allows {who} no more pods", (said,),
                            snapshot.kubectl(f"-n {space(item)} describe resourcequota"), weight=1)  # fmt: skip
            elif "failed calling webhook" in said:
                yield Cause("webhook-refuses", "mesh", f"a webhook that cannot be called blocks the pods of {who}", (said,),
                            snapshot.kubectl("get mutatingwebhookconfigurations,validatingwebhookconfigurations"),
                            follows=True, weight=6)  # fmt: skip
            else:
                yield Cause("pods-refused", LAYER, f"the pods of {who} are refused", (said,),
                            snapshot.kubectl(f"-n {space(item)} describe deployment {named(item)}"), weight=1)  # fmt: skip


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels match a selector of names and values."""
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def services(snapshot: Snapshot) -> Iterator[Cause]:
    """Each Service with a selector has pods, or a workload that would create them."""
    if not snapshot.cluster.listed("pods"):
        return
    pods = snapshot.cluster.items("pods")
    workloads = [w for kind in ("deployments", "statefulsets", "daemonsets") for w in snapshot.cluster.items(kind)]
    for service in snapshot.cluster.items("services"):
        selector, namespace = dig(service, "spec", "selector", default={}), space(service)
        if not selector or any(space(p) == namespace and matches(selector, dig(p, "metadata", "labels", default={}))
                               for p in pods):  # fmt: skip
            continue
        who = f"{namespace}/{named(service)}"
        made_by = [w for w in workloads if space(w) == namespace
                   and matches(selector, dig(w, "spec", "template", "metadata", "labels", default={}))]  # fmt: skip
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        if not made_by:
            yield Cause("service-selector", LAYER, f"the selector of the Service {who} matches no pod",
                        (f"selector {labels}",), snapshot.kubectl(f"-n {namespace} get pods --show-labels"), weight=2)  # fmt: skip
        elif dig(made_by[0], "spec", "replicas", default=1) == 0 and namespace not in ("kube-system", "istio-system"):
            name = named(made_by[0])
            layer = "observability" if namespace == "logging" else LAYER
            yield Cause("scaled-to-zero", layer, f"{namespace}/{name}, the workload behind the Service {who}, is scaled to 0",
                        (f"replicas 0; selector {labels}",),
                        snapshot.kubectl(f"-n {namespace} scale {made_by[0].get('kind', 'deployment').lower()} {name} --replicas=1"),
                        weight=2)  # fmt: skip


RULES = (pending, containers, stuck, refused, services)
