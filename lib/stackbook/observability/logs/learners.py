"""Chapter 12 on an existing cluster: Elasticsearch and one shipper in the learner's namespace, without a machine's files.

There a learner may not read the log files of machines, which have the lines of everybody. So the shipper's pod has a second container,
`follow` (`lib/follow`): it reads the logs of the learner's own pods by the API server, and writes them where the shipper looks for the
files of a machine. Ids, fields and stack traces are the same. What it cannot know: whether a line came from stderr, and lines of files
that were rotated before it began.
"""

from __future__ import annotations

from typing import Any

import yaml

from stackbook.cluster import own_namespaces
from stackbook.config.namespaces import Namespaces
from stackbook.core import yaml_text

IMAGE = "log-follower"
_FILES = {"emptyDir": {"sizeLimit": "1Gi"}}
_MACHINES_OWN = ("Namespace", "ClusterRole", "ClusterRoleBinding")
_LAB = Namespaces()


def manifest(text: str, spaces: Namespaces, *, follower: str = "") -> str:
    """A manifest of the chapter as a learner applies it: in their namespace, without what belongs to machines.

    A DaemonSet becomes a Deployment of one pod, and a folder of a machine becomes one that lives as long as the pod.

    Args:
        text: the manifest for the lab's own cluster.
        spaces: the learner's namespaces.
        follower: the image of `follow`, for the shipper.
    """
    text = text.replace(f"namespace: {_LAB.logging}", f"namespace: {spaces.logging}")
    text = text.replace(f".{_LAB.logging}.svc", f".{spaces.logging}.svc")
    kept = []
    for item in yaml_text.load_all(text):
        if item["kind"] in _MACHINES_OWN:
            continue
        item["metadata"]["labels"] = {**item["metadata"].get("labels", {}), own_namespaces.CHAPTER: "12"}
        if item["kind"] == "DaemonSet":
            item["kind"] = "Deployment"
            item["spec"] |= {"replicas": 1, "strategy": {"type": "Recreate"}}
            item["spec"].pop("updateStrategy", None)
        for pod in _pods(item):
            _without_machines(pod)
            if follower and pod.get("serviceAccountName") == "shipper":
                pod["containers"].append(_follow(follower, spaces))
        kept.append(item)
    return yaml.safe_dump_all(kept, sort_keys=False)


def _pods(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod's specification of a workload, if it is one."""
    spec = item.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return [spec["template"]["spec"]] if "template" in spec else []


def _without_machines(pod: dict[str, Any]) -> None:
    # The only init container gives a machine's folder to the container's user.
    for name in ("nodeSelector", "tolerations", "initContainers"):
        pod.pop(name, None)
    for volume in pod.get("volumes", []):
        if volume.pop("hostPath", None):
            volume |= _FILES


def _follow(image: str, spaces: Namespaces) -> dict[str, Any]:
    return {
        "name": "follow",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [spaces.workloads, spaces.logging],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "pods", "mountPath": "/var/log/pods"}],
    }
