"""The Deployment myapp in its own namespace: its pods, and what happens to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbook.cluster import addresses
from stackbook.cluster.manifests import render
from stackbook.cluster.problems import pod_problem
from stackbook.config.namespaces import here
from stackbook.core.results import Result
from stackbook.core.waiting import until

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

NAMESPACE = "tour"
"""The namespace on the lab's own cluster."""


def namespace() -> str:
    """The namespace of this chapter on this lab."""
    return here().own(NAMESPACE)


def deploy(lab: Lab, replicas: int) -> list[str]:
    """Apply myapp twice: kubectl's second answer shows that applying is idempotent (K28)."""
    text = render("myapp.yaml", image_myapp=lab.images.reference("echo")).replace(
        "replicas: 2", f"replicas: {replicas}"
    )
    lab.kube.kubectl("apply", "-n", namespace(), "-f", "-", stdin=text)
    lab.kube.wait_pods(namespace(), "app=myapp", count=replicas, timeout=90)
    return lab.kube.kubectl("apply", "-n", namespace(), "-f", "-", stdin=text).lines


def pods(lab: Lab) -> list[dict[str, Any]]:
    """Myapp's pods: name, pod IP with its node's subnet, host IP."""
    slices = {n["metadata"]["name"]: n["spec"].get("podCIDR", "") for n in lab.kube.nodes()}
    return [
        {"pod": p["metadata"]["name"], "node": p["spec"]["nodeName"], "pod IP": p["status"]["podIP"],
         "slice of the node": slices[p["spec"]["nodeName"]], "host IP": p["status"]["hostIP"]}
        for p in lab.kube.pods(namespace(), "app=myapp")
    ]  # fmt: skip


def page(lab: Lab, address: str, path: str = "/") -> Result:
    """Fetch a page of myapp from the control plane's machine; on an existing cluster, through the API server."""
    if lab.profile.target == "cluster":
        (pod,) = [p["metadata"]["name"] for p in lab.kube.pods(namespace()) if p["status"].get("podIP") == address]
        way = f"/api/v1/namespaces/{namespace()}/pods/{pod}/proxy{path}"
        return lab.kube.kubectl("get", "--raw", way, check=False)
    return lab.control_plane.run(["curl", "-sS", "-m", "5", f"http://{address}{path}"], check=False)


def replaced(lab: Lab) -> dict[str, Any]:
    """Delete one pod and watch its replacement (K43, K62): addresses before and after, and the service's."""
    before = pods(lab)
    service = addresses.cluster_ip(lab.kube, namespace(), "myapp")
    victim = before[0]
    lab.kube.kubectl("delete", "pod", "-n", namespace(), victim["pod"], "--wait=false")

    def back() -> list[dict[str, Any]]:
        now = lab.kube.pods(namespace(), "app=myapp")
        names = {p["metadata"]["name"] for p in now}
        done = victim["pod"] not in names and len(now) == len(before) and not any(pod_problem(p) for p in now)
        return now if done else []

    until(
        back,
        what="the deleted pod to be replaced",
        timeout=60,
        every=0.3,
        cause=lambda: lab.kube.explain(namespace(), "app=myapp"),
    )
    after = pods(lab)
    new = [p for p in after if p["pod"] not in {b["pod"] for b in before}]
    return {"deleted": victim["pod IP"], "its replacement": new[0]["pod IP"], "service before": service,
            "service after": addresses.cluster_ip(lab.kube, namespace(), "myapp")}  # fmt: skip


def unlabelled(lab: Lab) -> dict[str, bool]:
    """Remove a pod's label: it leaves the service but keeps running (K69)."""
    name = lab.kube.pods(namespace(), "app=myapp")[0]["metadata"]["name"]
    lab.kube.kubectl("label", "pod", "-n", namespace(), name, "app-")

    def gone() -> bool:
        ready = addresses.endpoints(lab.kube, namespace(), "myapp", ready=True)
        return name not in {endpoint["targetRef"]["name"] for endpoint in ready}

    until(gone, what=f"{name} to leave the EndpointSlice", timeout=30, every=0.2)
    phase = lab.kube.kubectl("get", "pod", "-n", namespace(), name, "-o", "jsonpath={.status.phase}").stdout
    left = gone()  # asked again: the running pod does not return into the service
    lab.kube.kubectl("delete", "pod", "-n", namespace(), name, "--wait=false")
    return {"left the service": left, "still running": phase == "Running"}
