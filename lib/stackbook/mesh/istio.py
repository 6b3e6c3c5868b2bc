"""Istio on the lab: its installation, its gateways, and what its proxies report.

Upstream Envoy (which the lab builds if it cannot reach a registry) lacks Istio's own filters; the settings in
`UPSTREAM_ENVOY` keep istiod from using them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from stackbook.cluster.kube import Kube
from stackbook.core.errors import CommandFailed, StackbookError
from stackbook.core.waiting import until

NAMESPACE = "istio-system"
COMPONENTS = ("istiod", "istio-ingressgateway", "istio-egressgateway")
ISTIOD = "istiod"
"""The turn of a step that removes it, or that needs it without a break: see `Lab.turn`."""
DRAIN = "2s"
"""How long a proxy keeps connections of a listener that has changed (Envoy's --drain-time-s; Istio's default is 45 s).

During that time the proxy closes each connection after its next answer, and at the end those that are idle. A request that
meets such a close gets 503 with flag UC. Here, listeners change when tracing is switched on or off.
"""
UPSTREAM_ENVOY: dict[str, Any] = {
    "telemetry": {"enabled": False, "v2": {"enabled": False}},
    "pilot": {"env": {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"}},
}


@dataclass(frozen=True)
class ImageSource:
    """Where Istio's images come from: `hub` and `tag` of `pilot` and `proxyv2`. stackbook never relies on istioctl's defaults."""

    hub: str
    tag: str
    upstream_envoy: bool = False
    pull_policy: str = "IfNotPresent"


def operator(profile: str, images: ImageSource) -> str:
    """An IstioOperator file for `istioctl install -f`: the profile, and what this lab needs in addition.

    Resource requests fit a machine with 2 cores. Access logs are JSON, because the chapters about logs read them.
    """
    values: dict[str, Any] = {
        "global": {"imagePullPolicy": images.pull_policy, "proxy": {"resources": _resources("10m", "40Mi")}},
        "pilot": {"autoscaleEnabled": False},
    }
    if images.upstream_envoy:
        values["telemetry"] = UPSTREAM_ENVOY["telemetry"]
        values["pilot"] = {**values["pilot"], **UPSTREAM_ENVOY["pilot"]}
    spec: dict[str, Any] = {
        "profile": profile,
        "hub": images.hub,
        "tag": images.tag,
        "meshConfig": {
            "accessLogFile": "/dev/stdout",
            "accessLogEncoding": "JSON",
            "enableTracing": True,
            "defaultConfig": {
                # How long a proxy still answers while it stops: istio.io, "Sidecar lifecycle".
                "terminationDrainDuration": "5s",
                "drainDuration": DRAIN,
                "proxyStatsMatcher": {"inclusionRegexps": [".*fault.*", ".*upstream_rq.*", ".*outlier.*"]},
                # Spans are sent every second instead of every five, so that a chapter finds its traces soon.
                "runtimeValues": {"tracing.opentelemetry.flush_interval_ms": "1000"},
            },
        },
        "components": {"pilot": {"k8s": {"resources": _resources("10m", "100Mi")}}},
        "values": values,
    }
    document = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec}
    return yaml.safe_dump(document, sort_keys=False)


def _resources(cpu: str, memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}}


def components(kube: Kube, namespace: str = NAMESPACE) -> dict[str, bool]:
    """Name → available, for each Deployment of Istio's namespace, or of another one."""
    items = kube.json("get", "deployments", "-n", namespace)["items"]
    return {d["metadata"]["name"]: bool(d["status"].get("availableReplicas")) for d in items}


def wait_installed(kube: Kube, wanted: tuple[str, ...] = COMPONENTS, *, timeout: float = 180.0) -> None:
    """Wait until Istio's Deployments are available.

    Raises:
        WaitTimeout: they are not; the error names the pod that is not Ready and the reason, unlike istioctl's own timeout.
    """

    def done() -> bool:
        state = components(kube)
        return all(state.get(name) for name in wanted)

    until(
        done,
        what=f"Istio's components to be available: {', '.join(wanted)}",
        timeout=timeout,
        every=0.5,
        last=lambda: ", ".join(f"{n}: {'available' if ok else 'not available'}" for n, ok in components(kube).items()),
        cause=lambda: kube.explain(NAMESPACE),
        tolerate=(CommandFailed,),
    )


def pods_with_sidecar(pods: list[dict[str, Any]]) -> Mapping[str, bool]:
    """Pod name → whether it has `istio-proxy`, as a container or a native sidecar (K32)."""
    found = {}
    for pod in pods:
        spec = pod["spec"]
        names = [c["name"] for c in [*spec["containers"], *spec.get("initContainers", [])]]
        found[pod["metadata"]["name"]] = "istio-proxy" in names
    return found


def ready_column(pod: dict[str, Any]) -> str:
    """READY as kubectl prints it, including restartable init containers (K33)."""
    status, spec = pod["status"], pod["spec"]
    restartable = {c["name"] for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"}
    states = [*status.get("containerStatuses", [])]
    states += [s for s in status.get("initContainerStatuses", []) if s["name"] in restartable]
    total = len(spec["containers"]) + len(restartable)
    return f"{sum(bool(s.get('ready')) for s in states)}/{total}"


__all__ = [
    "COMPONENTS",
    "ImageSource",
    "StackbookError",
    "components",
    "operator",
    "pods_with_sidecar",
    "ready_column",
    "wait_installed",
]

ADDONS = ("grafana", "jaeger", "kiali", "loki", "prometheus")


def installed(kube: Kube, fingerprint: str) -> bool:
    """Whether Istio was installed with exactly this configuration, as its namespace's annotation says."""
    answer = kube.kubectl("get", "namespace", NAMESPACE, "-o", r"jsonpath={.metadata.annotations.stackbook\.lab/operator}",
                          check=False)  # fmt: skip
    return answer.ok and answer.stdout == fingerprint


def remember(kube: Kube, fingerprint: str) -> None:
    """Write into an annotation of Istio's namespace which configuration was installed."""
    kube.kubectl("annotate", "namespace", NAMESPACE, f"stackbook.lab/operator={fingerprint}", "--overwrite")
