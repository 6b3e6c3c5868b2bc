"""What the diagnosis asks the API server: lists, read by their paths. It reads no Secrets."""

from __future__ import annotations

from collections.abc import Mapping

PATHS: Mapping[str, str] = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "warnings": "/api/v1/events?fieldSelector=type%3DWarning&limit=400",
    "services": "/api/v1/services",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
    "namespaces": "/api/v1/namespaces",
    "deployments": "/apis/apps/v1/deployments",
    "daemonsets": "/apis/apps/v1/daemonsets",
    "statefulsets": "/apis/apps/v1/statefulsets",
    "configmaps": "/api/v1/namespaces/kube-system/configmaps",
    "flannel": "/api/v1/namespaces/kube-flannel/configmaps",
    "mesh roots": "/api/v1/configmaps?fieldSelector=metadata.name%3Distio-ca-root-cert",
    "claims": "/api/v1/persistentvolumeclaims",
    "storageclasses": "/apis/storage.k8s.io/v1/storageclasses",
    "quotas": "/api/v1/resourcequotas",
    "mutating": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "validating": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "virtualservices": "/apis/networking.istio.io/v1/virtualservices",
    "destinationrules": "/apis/networking.istio.io/v1/destinationrules",
    "gateways": "/apis/networking.istio.io/v1/gateways",
    "serviceentries": "/apis/networking.istio.io/v1/serviceentries",
}
READY = "/readyz?verbose"


def log_path(namespace: str, pod: str, container: str, *, previous: bool, lines: int = 8, seconds: int = 0) -> str:
    """The API path of the last lines of a container's log; with `seconds`, only of what is not older."""
    since = f"&sinceSeconds={seconds}" if seconds else ""
    before = "&previous=true" if previous else ""
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={lines}{before}{since}"
