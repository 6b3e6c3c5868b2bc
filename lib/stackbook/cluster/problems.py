"""Why a node or a pod is not Ready, according to the API."""

from __future__ import annotations

from typing import Any


def node_problem(node: dict[str, Any]) -> str:
    """Why a node is not Ready; empty if it is."""
    for condition in node["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return "" if condition["status"] == "True" else f"{condition['reason']}: {condition['message']}"[:300]
    return "no Ready condition yet"


def pod_problem(pod: dict[str, Any]) -> str:
    """Why a pod is not Ready; empty if it is. A completed pod counts as Ready."""
    status = pod["status"]
    if status.get("phase") == "Succeeded":
        return ""
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    for state in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = state.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            message = " ".join(str(waiting.get("message", "")).split())
            return f"{state['name']} {waiting.get('reason')}: {message}"[:300].rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', '')}"[:300]
    return str(status.get("phase", "Unknown")) + ": not ready yet"
