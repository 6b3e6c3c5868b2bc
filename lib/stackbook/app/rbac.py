"""`stackbook rbac`: what a learner needs on an existing cluster, as a file that an administrator reads and applies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from stackbook.app.cluster_rights import CLUSTER, LEARNER, LOGS, RIGHTS, Right, chapters_of, quotas
from stackbook.cluster.own_namespaces import LABEL
from stackbook.config.namespaces import Namespaces
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError
from stackbook.observability.tracing import telemetry

USER = "learner"


def manifest(profile: Profile) -> str:
    """The manifest for the learner of a profile: namespaces, quotas, an account, roles and their bindings.

    Raises:
        InputError: the profile's target has no administrator but this user.
    """
    if profile.target != "cluster":
        raise InputError(
            "stackbook rbac is about a cluster that somebody else runs", fix="use a profile with target: cluster"
        )
    spaces = profile.namespaces
    parts = [*_namespaces(spaces), _account(spaces)]
    for name in spaces.every:
        parts += _role(spaces, name, LEARNER)
    parts += _role(spaces, spaces.logging, LOGS)
    for name in dict.fromkeys(right.where for right in RIGHTS if right.where not in (LEARNER, LOGS, CLUSTER)):
        parts += _role(spaces, name, name)
    finds = {"pods": (("get", "list", "watch"), "chapter 10: the learner's Prometheus finds the pods that it scrapes")}
    parts += _account_role("prometheus", spaces.monitoring, spaces.monitoring, finds)
    reads = {
        "pods": (("get", "list"), "chapter 12: the learner's shipper finds the pods, and reads their labels"),
        "pods/log": (("get",), "chapter 12: the learner's shipper reads their logs"),
        "namespaces": (("get",), "chapter 12: the learner's shipper reads the labels of this namespace"),
    }
    for name in (spaces.workloads, spaces.logging):
        parts += _account_role("shipper", name, spaces.logging, reads)
    parts += _cluster_role(spaces)
    return f"{_head(profile)}{'---'.join(parts)}"


def _head(profile: Profile) -> str:
    spaces = profile.namespaces
    flags = f"-n {spaces.learner} --duration=8h"
    return f"""\
# What the chapters 04 to 07 and 10 to 12 of stackbook need for one learner, {spaces.learner}. Read it, then: kubectl apply -f FILE
#
# Everything that the chapters make is in the namespaces {", ".join(spaces.every)}.
# Outside them, the learner only reads what the Roles in istio-system and kube-system and the ClusterRole at the end name.
# One right reaches further than its purpose: port-forward in istio-system reaches every port of every pod there, because Kubernetes
# cannot restrict it to istiod's debug port. Without it the chapters cannot wait until the proxies have a rule.
#
# The mesh must be there (stackbook installs none on a cluster), with JSON access logs: istioctl install --set profile=default
#   --set meshConfig.accessLogFile=/dev/stdout --set meshConfig.accessLogEncoding=JSON
# Chapter 11 needs a way for the learner's spans, in the mesh's configuration (kubectl edit configmap istio -n istio-system):
#   extensionProviders:
#   - {json.dumps(telemetry.extension_provider(spaces))}
# For a mesh with revisions, replace istio-injection: enabled by istio.io/rev: NAME. The pods need NET_ADMIN and NET_RAW, for
# the mesh's own init container and for the packet capture of chapter 06: Pod Security `baseline` refuses them.
#
# A token for the learner's kubeconfig (bind the Roles to your own user instead, if there is one):
#   kubectl create token {USER} {flags}
"""


def _namespaces(spaces: Namespaces) -> Iterator[str]:
    for name, quota in quotas(spaces).items():
        meshed = name == spaces.workloads
        hard = "".join(f"\n    {key}: {json.dumps(value)}" for key, value in quota.hard.items())
        yield f"""
apiVersion: v1
kind: Namespace
metadata:
  name: {name} # {quota.makes}
  labels:
    {LABEL}: "true" # stackbook uses and empties only namespaces with this label{chr(10) + "    istio-injection: enabled" if meshed else ""}
---
apiVersion: v1
kind: ResourceQuota
metadata: {{name: stackbook, namespace: {name}}}
spec:
  hard:{hard}
---
apiVersion: v1
kind: LimitRange # what a container asks for that says nothing
metadata: {{name: stackbook, namespace: {name}}}
spec:
  limits:
  - type: Container
    defaultRequest: {{cpu: 10m, memory: 32Mi}}
    default: {{memory: 512Mi}}
"""


def _account(spaces: Namespaces) -> str:
    return f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {USER}, namespace: {spaces.workloads}}}
automountServiceAccountToken: false
"""


def _role(spaces: Namespaces, name: str, where: str) -> list[str]:
    title = {LEARNER: USER, LOGS: f"{USER}-logs"}.get(where, f"stackbook-{spaces.learner}")
    rules = _rules([right for right in RIGHTS if right.where == where])
    return _granted(title, name, rules, USER, spaces.workloads)


def _granted(title: str, name: str, rules: str, account: str, of: str) -> list[str]:
    """A Role in the namespace `name`, and its binding to an account of the namespace `of`."""
    return [
        f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {title}, namespace: {name}}}
rules:
{rules}""",
        _binding("Role", title, name, account, of),
    ]


def _account_role(account: str, where: str, of: str, resources: Mapping[str, tuple[Sequence[str], str]]) -> list[str]:
    """What a program of the learner may do in a namespace, by resource with the reason; its account is in the namespace `of`."""
    rules = "".join(
        f'# {why}\n- apiGroups: [""]\n  resources: {json.dumps([name])}\n  verbs: {json.dumps(list(verbs))}\n'
        for name, (verbs, why) in resources.items()
    )
    return _granted(account, where, rules, account, of)


def _cluster_role(spaces: Namespaces) -> list[str]:
    title = f"stackbook-{spaces.learner}"
    rules = _rules([right for right in RIGHTS if right.where == CLUSTER])
    return [
        f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole # what is in no namespace
metadata: {{name: {title}}}
rules:
{rules}""",
        _binding("ClusterRole", title, "", USER, spaces.workloads),
    ]


def _binding(kind: str, title: str, namespace: str, account: str, of: str) -> str:
    where = f", namespace: {namespace}" if namespace else ""
    return f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}Binding
metadata: {{name: {title}{where}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {title}}}
subjects:
- {{kind: ServiceAccount, name: {account}, namespace: {of}}}
"""


def _rules(rights: Sequence[Right]) -> str:
    return "".join(
        f"# {chapters_of(right)}: {right.why}\n"
        f"- apiGroups: {json.dumps([right.group])}\n"
        f"  resources: {json.dumps(right.resources)}\n"
        + (f"  resourceNames: {json.dumps(right.names)}\n" if right.names else "")
        + f"  verbs: {json.dumps(right.verbs)}\n"
        for right in rights
    )
