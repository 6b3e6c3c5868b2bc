"""The product page and the ingress gateway: what the guide's objects promise, and what the gateway lets in."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from stackbook.cluster import addresses
from stackbook.config.namespaces import here
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.mesh import bookinfo

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def claims(kube: Kube) -> dict[str, bool]:
    """What the guide's Service, ServiceAccount and Deployment of productpage promise, and whether it is true."""
    service, account = kube.json("get", "svc/productpage"), kube.json("get", "sa/bookinfo-productpage")
    deployment = kube.json("get", "deploy/productpage-v1")["spec"]
    behind = {
        a for endpoint in addresses.endpoints(kube, here().workloads, "productpage") for a in endpoint["addresses"]
    }
    pods = {pod["status"]["podIP"] for pod in kube.pods(here().workloads, "app=productpage")}
    sets = kube.json("get", "replicasets", "-l", "app=productpage")["items"]
    identity = f"system:serviceaccount:{here().workloads}:{account['metadata']['name']}"
    may = [kube.kubectl("auth", "can-i", verb, "pods", f"--as={identity}", check=False) for verb in ("get", "list")]
    return {
        "the port is named http, which tells Istio the protocol": service["spec"]["ports"][0]["name"] == "http",
        "the service's endpoints are its pods": behind == pods,
        "replicas: 1 means one pod, by one ReplicaSet": deployment["replicas"] == len(pods) == 1
        and [s["spec"]["replicas"] for s in sets if s["spec"]["replicas"]] == [1],
        "containers is a list": isinstance(deployment["template"]["spec"]["containers"], list),
        "the pods carry the account's name": deployment["template"]["spec"]["serviceAccountName"]
        == account["metadata"]["name"],
        "the account gives no right to read pods": [answer.stdout.strip() for answer in may] == ["no", "no"],
        "a pod that names no account has the one called default": kube.json("get", "pod/load")["spec"][
            "serviceAccountName"
        ]
        == "default",
    }


def doors(ingress: str, user: str) -> list[dict[str, Any]]:
    """The ingress gateway's answers for the paths of the guide's VirtualService and two others, for two hosts."""
    import httpx

    paths = ("/productpage", "/static/", "/login", "/logout", "/api/v1/products", "/reviews/0", "/")
    rows = []
    for path in paths:
        verb, form = ("POST", {"username": user}) if path == "/login" else ("GET", None)
        said = []
        for host in ("bookinfo.example", "any.other.name"):
            answer = httpx.request(verb, ingress + path, headers={"host": host}, data=form, timeout=10, trust_env=False)
            # Envoy answers 404 itself; only a service's answer has its duration in a header.
            said.append((answer.status_code, "x-envoy-upstream-service-time" in answer.headers))
        rows.append(
            {"path": path, "status": said[0][0], "reaches a service": said[0][1], "for any host": said[0] == said[1]}
        )
    return rows


CALLS = {("productpage", "details"), ("productpage", "reviews"), ("reviews", "ratings")}
"""Who calls whom in bookinfo, as the guide says."""


def calls(kube: Kube, *, seconds: int = 60) -> set[tuple[str, str]]:
    """Who called whom in the last seconds, according to bookinfo's proxies' logs of outbound requests.

    It polls the logs until they have all of `CALLS`, for at most 5 s: Envoy writes them once a second.
    """
    found: set[tuple[str, str]] = set()

    def complete() -> bool:
        for workload in bookinfo.WORKLOADS:
            flags = ["-n", here().workloads, f"deploy/{workload}", "-c", "istio-proxy", f"--since={seconds}s"]
            for line in kube.kubectl("logs", *flags).lines:
                direction, _, _, host = (_cluster(line).split("|") + [""] * 3)[:4]
                if direction == "outbound":
                    found.add((workload.rpartition("-")[0], host.partition(".")[0]))
        return found >= CALLS

    with contextlib.suppress(WaitTimeout):
        until(complete, what="the proxies to log the calls", timeout=5, every=0.3)
    return found


def _cluster(line: str) -> str:
    """The upstream cluster of an access log line; empty for any other line."""
    try:
        return str(json.loads(line).get("upstream_cluster") or "")
    except (ValueError, AttributeError):
        return ""
