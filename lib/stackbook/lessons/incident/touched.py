"""What else was changed in the lab while an incident was open: objects and pods that differ from their state before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CommandFailed
from stackbook.lessons.incident.causes import PLACES
from stackbook.mesh.rules import KINDS

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

_RULES = (
    *KINDS.values(), "authorizationpolicies.security.istio.io", "requestauthentications.security.istio.io",
    "telemetries.telemetry.istio.io",
)  # fmt: skip
_WORKLOADS = ("deployments", "statefulsets", "daemonsets", "services")
LOOKED_AT: Mapping[str, tuple[str, ...]] = {
    "default": (*_RULES, *_WORKLOADS, "pods"),
    "istio-system": (*_RULES, *_WORKLOADS, "configmaps"),
    "logging": _WORKLOADS,
}
"""The stack: bookinfo with its pods, and every rule beside it; the mesh with Prometheus and Jaeger; Elasticsearch and its shippers."""
_BY_ITSELF = ("istio-leader", "istio-namespace-controller-election", "istio-gateway-")
"""ConfigMaps that controllers write at any time."""


def standing(kube: Kube) -> dict[str, str]:
    """The objects in the namespaces of the stack: "Kind namespace/name" → a mark that changes with its spec."""
    found: dict[str, str] = {}
    for namespace, kinds in LOOKED_AT.items():
        try:
            items = kube.json("get", ",".join(kinds), "-n", namespace)["items"]
        except CommandFailed:
            continue
        found |= marks(items)
    return found


def marks(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The marks of objects; in the namespace default, workloads and pods that are not bookinfo's are left out.

    A pod's mark is its uid, which does not change when a container restarts by itself.

    >>> pod = {"kind": "Pod", "metadata": {"namespace": "default", "name": "a-1", "uid": "u", "labels": {"app": "details"}}}
    >>> marks([pod])
    {'Pod default/a-1': 'u'}
    """
    found = {}
    for item in items:
        meta = item["metadata"]
        rule = "istio.io/" in str(item.get("apiVersion", ""))
        strange = meta["namespace"] == "default" and not rule and meta.get("labels", {}).get("app") not in PLACES
        if strange or "deletionTimestamp" in meta or meta["name"].startswith(_BY_ITSELF):
            continue
        kept = [
            {name: value for name, value in item.items() if name not in ("metadata", "status")},
            meta.get("labels", {}),
        ]
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
        found[f"{item['kind']} {meta['namespace']}/{meta['name']}"] = (
            str(meta["uid"]) if item["kind"] == "Pod" else digest
        )
    return found


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What was changed, created or removed, one line each; the pods of a changed workload are not listed separately.

    >>> changes({"Pod default/a-1": "u"}, {"Pod default/a-2": "v"})
    ['a pod of default/a was replaced']
    """
    names = sorted({*before, *after})
    different = [name for name in names if before.get(name) != after.get(name)]
    objects = [name for name in different if not name.startswith("Pod ")]
    lines = []
    for name in objects:
        word = "was created" if name not in before else "was removed" if name not in after else "was changed"
        lines.append(f"{name} {word}")
    workloads = {name.partition(" ")[2] for name in objects}
    pods = {
        workload for name in different if name.startswith("Pod ") and (workload := _workload(name)) not in workloads
    }
    return lines + [f"a pod of {workload} was replaced" for workload in sorted(pods)]


def _workload(pod: str) -> str:
    """A pod's workload, from the pod's name: a Deployment's pods have two more parts, the first of which is the template's hash."""
    parts = pod.partition(" ")[2].split("-")
    hashed = len(parts) > 2 and len(parts[-1]) == 5 and parts[-2][-1:].isalnum() and any(c.isdigit() for c in parts[-2])
    return "-".join(parts[:-2] if hashed and len(parts[-2]) >= 8 else parts[:-1])
