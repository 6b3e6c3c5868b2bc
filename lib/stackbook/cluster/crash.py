"""Crashes: a container's process is killed on its machine, so it has no chance to store anything or to say good-bye.

`kubectl delete --force --grace-period=0` is not that. It removes the object at once, but the kubelet then still stops the containers
with SIGTERM and a grace period of at least a second (`calculateEffectiveGracePeriod` in Kubernetes' pkg/kubelet/pod_workers.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.machines.transports import Host


def kill(machines: Mapping[str, Host], pod: Mapping[str, Any], container: str = "") -> None:
    """Send SIGKILL to the process of a container; Kubernetes restarts it.

    Args:
        machines: the lab's machines by name.
        pod: the pod, as the API has it.
        container: its container; the first one if it is empty.

    Raises:
        CheckFailed: the container does not run, or its machine is not the lab's.
        CommandFailed: containerd refused.
    """
    name, node = str(pod["metadata"]["name"]), str(pod["spec"].get("nodeName", ""))
    if node not in machines:
        raise CheckFailed(f"the pod {name} is on {node or 'no machine'}, which is not a machine of this lab")
    ids = [str(status.get("containerID", "")).removeprefix("containerd://")
           for status in pod["status"].get("containerStatuses", []) if container in ("", status["name"])]  # fmt: skip
    if not ids or not ids[0]:
        raise CheckFailed(f"the pod {name} has no running container {container}".rstrip())
    machines[node].run(["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", ids[0]])


def lose(kube: Kube, machines: Mapping[str, Host], pod: Mapping[str, Any]) -> str:
    """Kill the process of a pod's first container, and delete the pod, so that another one takes its place at once.

    A restarted container would wait longer after each crash. Returns the uid of the pod that is gone.

    Raises:
        CheckFailed: the container does not run, or its machine is not the lab's.
        CommandFailed: containerd or the API server refused.
    """
    found = pod["metadata"]
    kill(machines, pod)
    kube.kubectl(
        "delete", "pod", found["name"], "-n", found["namespace"], "--grace-period=0", "--force", "--wait=false"
    )
    return str(found["uid"])
