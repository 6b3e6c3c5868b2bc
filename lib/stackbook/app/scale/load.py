"""Small pods in the mesh, in groups: each group is a Deployment with a Service of its own."""

from __future__ import annotations

from typing import Any

NAMESPACE = "scale"
GROUP = 10
"""Pods of one group."""
USER = 20000
"""The user of the first group's proxies.

A proxy holds three inotify instances, and the kernel's default limit is 128 for each user. Istio runs all proxies as user 1337, so about
40 of them would reach the limit. Each group's proxies have a user of their own; their group stays 1337, which Istio's rules look for, too.
"""


def manifest(group: int, *, image: str, replicas: int = GROUP) -> list[dict[str, Any]]:
    """The Deployment and the Service of a group, numbered from 0."""
    name = f"small-{group:02d}"
    labels = {"app": name}
    container = {
        "name": "echo", "image": image, "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
    }  # fmt: skip
    # Istio's webhook completes it. Without a policy, the API server would set Always, as "auto" has no tag.
    proxy = {
        "name": "istio-proxy", "image": "auto", "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsUser": USER + group},
    }  # fmt: skip
    annotations = {"sidecar.istio.io/proxyCPU": "1m", "sidecar.istio.io/proxyMemory": "32Mi"}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container, proxy]},
    }
    return [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80}]},
        },
    ]  # fmt: skip
