"""Where the chapters' workloads go: fixed namespaces on the lab's own cluster, the learner's own on an existing one.

A notebook has one lab, and `bind` sets its namespaces with `use`. Functions without a lab, such as the builders of traffic rules, ask
`here`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MESH = "istio-system"
EXTRA = ("tour", "stranger", "gone", "logging")
"""The namespaces beside the workloads': chapter 04's, two of chapter 05, and chapter 12's."""
_SYSTEM = re.compile(r"default|(kube|istio|openshift|cert-manager|calico|tigera|cattle)(-.*)?|.*-system")


@dataclass(frozen=True)
class Namespaces:
    """The namespaces of a lab.

    Args:
        learner: the learner's own namespace on an existing cluster; empty on the lab's own cluster.
    """

    learner: str = ""

    @property
    def workloads(self) -> str:
        """The namespace of bookinfo, its rules and the pods that send requests."""
        return self.learner or "default"

    @property
    def gateways(self) -> str:
        """The namespace of the ingress and the egress gateway: the mesh's own, or on an existing cluster the learner's."""
        return self.learner or MESH

    @property
    def monitoring(self) -> str:
        """The namespace of Prometheus: the mesh's own, where Istio's addons are, or on an existing cluster the learner's."""
        return self.learner or MESH

    @property
    def logging(self) -> str:
        """The namespace of Elasticsearch and the shippers."""
        return self.own("logging")

    def own(self, name: str) -> str:
        """The name that a chapter's further namespace has.

        >>> Namespaces().own("tour"), Namespaces("ada").own("tour")
        ('tour', 'ada-tour')
        """
        return f"{self.learner}-{name}" if self.learner else name

    def gateway_label(self, kind: str) -> str:
        """The value of the label `istio` of a gateway's pods: a learner's own, so that no rule reaches other gateways.

        >>> Namespaces().gateway_label("ingressgateway"), Namespaces("ada").gateway_label("ingressgateway")
        ('ingressgateway', 'ada-ingressgateway')
        """
        return f"{self.learner}-{kind}" if self.learner else kind

    def host(self, service: str) -> str:
        """The full name of a Service of the workloads.

        >>> Namespaces().host("reviews")
        'reviews.default.svc.cluster.local'
        """
        return f"{service}.{self.workloads}.svc.cluster.local"

    def identity(self, account: str) -> str:
        """The SPIFFE id of a service account of the workloads.

        >>> Namespaces("ada").identity("bookinfo-reviews")
        'spiffe://cluster.local/ns/ada/sa/bookinfo-reviews'
        """
        return f"spiffe://cluster.local/ns/{self.workloads}/sa/{account}"

    @property
    def every(self) -> tuple[str, ...]:
        """All namespaces of a learner: the workloads', and those of `EXTRA`."""
        return (self.workloads, *(self.own(name) for name in EXTRA))


def is_system(name: str) -> bool:
    """Whether a namespace belongs to the cluster or to its infrastructure.

    >>> is_system("kube-system"), is_system("default"), is_system("ada")
    (True, True, False)
    """
    return _SYSTEM.fullmatch(name) is not None


_current = Namespaces()


def use(namespaces: Namespaces) -> None:
    """Set the namespaces of this process's lab."""
    global _current
    _current = namespaces


def here() -> Namespaces:
    """The namespaces of this process's lab; those of the lab's own cluster until `use` sets others."""
    return _current
