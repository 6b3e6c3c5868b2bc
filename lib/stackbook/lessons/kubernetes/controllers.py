"""Who acts on a pod: the scheduler, the controllers, the kubelet and the eviction API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stackbook.core.waiting import until
from stackbook.lessons.kubernetes.myapp import NAMESPACE

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def actors(lab: Lab) -> list[dict[str, str]]:
    """Who did what to myapp's pods, by the events' own sources (K49, K51, K52, K53)."""
    wanted = {
        "Scheduled": "bound the pod to a node",
        "ScalingReplicaSet": "created the ReplicaSet",
        "SuccessfulCreate": "created the pod",
        "Started": "started the container",
    }

    def complete() -> list[dict[str, str]]:
        events = lab.kube.json("get", "events", "-n", NAMESPACE)["items"]
        found = {}
        for event in events:
            if event["reason"] in wanted:
                source = event.get("reportingComponent") or event.get("source", {}).get("component", "")
                found[event["reason"]] = str(source)
        rows = [{"event": k, "who": found.get(k, ""), "what": v} for k, v in wanted.items()]
        return rows if all(r["who"] for r in rows) else []

    return until(complete, what="events of scheduler, controllers and kubelet", timeout=20, every=0.5)


def evict(lab: Lab) -> dict[str, Any]:
    """Evict a pod by the API, and ask whether the scheduler is allowed to do that (K50)."""
    name = lab.kube.pods(NAMESPACE, "app=myapp")[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    address = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    lab.kube.kubectl("create", "--raw", address, "-f", "-", stdin=json.dumps(eviction))
    answer = lab.kube.kubectl("get", "pod", name, "-n", NAMESPACE, "-o", "json", check=False)
    conditions = json.loads(answer.stdout)["status"].get("conditions", []) if answer.ok else []
    reasons = [c.get("reason", "") for c in conditions if c["type"] == "DisruptionTarget"]
    may = lab.kube.kubectl("auth", "can-i", "create", "pods/eviction", "-n", NAMESPACE, "--as=system:kube-scheduler",
                           check=False).stdout.strip()  # fmt: skip
    return {"reason on the pod": reasons[0] if reasons else "", "may the scheduler evict?": may}
