"""What the chapters need on an existing cluster: rights with their reasons, and room in the learner's namespaces.

`rbac` prints these rights for an administrator, and `cluster_access` asks the API server for the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stackbook.config.namespaces import MESH, Namespaces

READ = ("get", "list")
WATCH = ("get", "list", "watch")
CHANGE = (*WATCH, "create", "update", "patch", "delete")
_ALL, _MESHED = ("04", "05", "06", "07", "10", "11", "12"), ("05", "06", "07", "10", "11", "12")
LEARNER, LOGS, DNS, CLUSTER = "learner", "logs", "kube-system", ""


@dataclass(frozen=True)
class Right:
    """What a user may do.

    Args:
        where: LEARNER for each of the learner's namespaces, LOGS for the one with the logs, the name of another namespace, or CLUSTER.
        group: the API group; empty for the core group.
        resources: plural names, with a subresource after a slash.
        verbs: what is done with them.
        chapters: the numbers of the chapters that need it.
        why: what for.
        names: only objects with these names.
    """

    where: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    chapters: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()


RIGHTS: tuple[Right, ...] = (
    Right(LEARNER, "", ("pods", "services", "serviceaccounts"), CHANGE, _ALL, "myapp; bookinfo; gateways; pods that send requests"),
    Right(LEARNER, "apps", ("deployments",), CHANGE, _ALL, "myapp; bookinfo; gateways"),
    Right(LEARNER, "apps", ("deployments/scale",), ("get", "update", "patch"), ("06",), "three pods of reviews, to see a policy's spread"),
    Right(LEARNER, "", ("configmaps",), CHANGE, _ALL, "Prometheus' configuration; what an earlier run has left"),
    Right(LEARNER, "apps", ("replicasets",), WATCH, _ALL, "what a Deployment has made"),
    Right(LEARNER, "", ("pods/log",), ("get",), _MESHED, "the proxies' access logs; why a pod is not Ready"),
    Right(LEARNER, "", ("pods/exec",), ("get", "create"), _MESHED, "sends requests from a pod; asks a pod's proxy for its configuration"),
    Right(LEARNER, "", ("pods/portforward",), ("get", "create"), ("05", "10", "11", "12"),
          "istioctl proxy-config; asks Prometheus, Jaeger and Elasticsearch"),
    Right(LEARNER, "", ("pods/proxy",), ("get",), ("04",), "asks each pod of myapp for a page"),
    Right(LEARNER, "", ("events",), READ, _ALL, "why a pod is not Ready"),
    Right(LEARNER, "discovery.k8s.io", ("endpointslices",), READ, ("04", "06"), "which pods are behind a Service"),
    Right(LEARNER, "", ("serviceaccounts",), ("impersonate",), ("06",), "asks what bookinfo's account may do: nothing",
          names=("bookinfo-productpage",)),
    Right(LEARNER, "", ("namespaces",), ("get",), _ALL, "reads the labels of this namespace"),
    Right(LEARNER, "", ("resourcequotas",), READ, _ALL, "whether the quota is large enough"),
    Right(LEARNER, "networking.istio.io", ("virtualservices", "destinationrules", "gateways", "serviceentries", "sidecars"), CHANGE, _ALL,
          "traffic rules; chapter 04 looks for some that were left"),
    Right(LEARNER, "security.istio.io", ("peerauthentications",), CHANGE, _ALL, "mutual TLS required and not"),
    Right(LEARNER, "telemetry.istio.io", ("telemetries",), CHANGE, _ALL, "which share of requests is traced; what an earlier run has left"),
    Right(LOGS, "apps", ("statefulsets",), CHANGE, ("12",), "Elasticsearch"),
    Right(LOGS, "batch", ("cronjobs", "jobs"), CHANGE, ("12",), "the job that deletes old lines"),
    Right(LOGS, "", ("secrets",), CHANGE, ("12",), "Elasticsearch's certificate and passwords, which the chapter creates"),
    Right(MESH, "apps", ("deployments",), READ, _MESHED, "whether istiod is available"),
    Right(MESH, "", ("configmaps",), ("get",), _MESHED, "whether the mesh writes access logs as JSON, and has a way for spans",
          names=("istio",)),
    Right(MESH, "", ("pods",), READ, _MESHED, "the name of istiod's pod"),
    Right(MESH, "", ("pods/portforward",), ("get", "create"), _MESHED, "istiod's debug port: which proxies have a rule already"),
    Right(DNS, "discovery.k8s.io", ("endpointslices",), READ, _ALL, "whether the cluster's DNS has an endpoint"),
    Right(CLUSTER, "", ("nodes",), READ, _ALL, "whether nodes are Ready, their addresses and pod ranges"),
    Right(CLUSTER, "apiextensions.k8s.io", ("customresourcedefinitions",), ("get",), ("06",), "which version of a kind is stored",
          names=("virtualservices.networking.istio.io",)),
)  # fmt: skip


@dataclass(frozen=True)
class Quota:
    """The room that a namespace gets, and the least that the chapters need; quantities as Kubernetes writes them.

    Args:
        makes: what the chapters make there, in words.
        hard: the quota.
        least: the least quota with which the chapters run.
        chapters: their numbers.
    """

    makes: str
    hard: Mapping[str, str]
    least: Mapping[str, str]
    chapters: tuple[str, ...]


_SMALL = {"requests.cpu": "1", "requests.memory": "1Gi", "services.nodeports": "0"}


def quotas(namespaces: Namespaces) -> dict[str, Quota]:
    """The quota of each of a learner's namespaces.

    The least counts bookinfo's six pods, two gateways, two pods that send requests, two more of reviews, a broken one, one that
    replaces another, Prometheus and Jaeger; a sidecar of Istio's own settings asks for 100m and 128Mi.
    """
    return {
        namespaces.workloads: Quota(
            "bookinfo, an ingress and an egress gateway, pods that send requests, traffic rules, Prometheus, Jaeger",
            {"pods": "20", "requests.cpu": "3", "requests.memory": "4Gi", "services.nodeports": "1"},
            {"pods": "16", "requests.cpu": "500m", "requests.memory": "1Gi", "services.nodeports": "1"},
            _MESHED,
        ),
        namespaces.own("tour"): Quota("myapp, until chapter 04 ends", {"pods": "8", **_SMALL}, {"pods": "4"}, ("04",)),
        namespaces.own("stranger"): Quota(
            "a pod without a sidecar, during a step of chapter 05", {"pods": "2", **_SMALL}, {"pods": "1"}, ("05",)
        ),
        namespaces.own("gone"): Quota(
            "bookinfo once more, during a step of chapter 05", {"pods": "8", **_SMALL}, {"pods": "6"}, ("05",)
        ),
        namespaces.logging: Quota(
            "Elasticsearch, a shipper, pods that write lines, Kibana if its image can be pulled",
            {"pods": "12", "requests.cpu": "1", "requests.memory": "2Gi", "services.nodeports": "0"},
            {"pods": "6", "requests.cpu": "200m", "requests.memory": "1Gi"},
            ("12",),
        ),
    }


def needed(numbers: Iterable[str]) -> Iterator[Right]:
    """The rights that chapters need, by their numbers."""
    chosen = set(numbers)
    return (right for right in RIGHTS if chosen & set(right.chapters))


def used(namespaces: Namespaces, numbers: Iterable[str]) -> list[str]:
    """The learner's namespaces that chapters use, by their numbers."""
    chosen = set(numbers)
    return [name for name, quota in quotas(namespaces).items() if chosen & set(quota.chapters)]


def chapters_of(right: Right) -> str:
    """Which chapters need a right, in words.

    >>> chapters_of(next(right for right in RIGHTS if right.resources == ("pods/proxy",)))
    'chapter 04'
    """
    plural = "s" if len(right.chapters) > 1 else ""
    return f"chapter{plural} {', '.join(right.chapters)}"
