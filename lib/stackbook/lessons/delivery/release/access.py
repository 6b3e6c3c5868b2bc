"""What a pipeline may do in the cluster: an account of its own, with rights in one namespace."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from stackbook.cluster.kube import Kube
from stackbook.core.redact import Secret

NAMESPACE = "release"
ACCOUNT = "pipeline"
_NAME = {"name": ACCOUNT, "namespace": NAMESPACE}
_WRITE = ["get", "list", "watch", "create", "patch", "update", "delete"]
_ROLE = [
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": _WRITE},
    {"apiGroups": [""], "resources": ["services"], "verbs": _WRITE},
    {"apiGroups": ["networking.istio.io"], "resources": ["virtualservices", "destinationrules", "gateways"], "verbs": _WRITE},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["get", "list"]},  # to say why a version does not start
]  # fmt: skip


def objects() -> list[dict[str, Any]]:
    """The account with its role, for an existing namespace."""
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _NAME},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": _NAME, "rules": _ROLE},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": _NAME,
         "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
         "subjects": [{"kind": "ServiceAccount", **_NAME}]},
    ]  # fmt: skip


def granted(kube: Kube, *, duration: str = "1h") -> Secret:
    """Make the account; returns a kubeconfig with a token of it, which is valid for `duration` (at least 10 min)."""
    kube.apply(objects())
    words = ("create", "token", ACCOUNT, "-n", NAMESPACE, f"--duration={duration}")
    token = Secret(kube.kubectl(*words, secret=True).reveal().strip())
    (cluster,) = yaml.safe_load(kube.kubeconfig.read_text(encoding="utf-8"))["clusters"]
    return Secret(kubeconfig(cluster["cluster"], token), remember=False)


def kubeconfig(cluster: dict[str, Any], token: Secret) -> str:
    """A kubeconfig for the account; JSON is YAML, too.

    Args:
        cluster: the cluster's server and CA, as another kubeconfig has them.
        token: the account's token.
    """
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": ACCOUNT,
        "clusters": [{"name": "lab", "cluster": {k: cluster[k] for k in ("server", "certificate-authority-data")}}],
        "users": [{"name": ACCOUNT, "user": {"token": token.reveal()}}],
        "contexts": [{"name": ACCOUNT, "context": {"cluster": "lab", "user": ACCOUNT, "namespace": NAMESPACE}}],
    })  # fmt: skip


def may(kube: Kube, questions: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Whether the account may do these things, as the API server says; a question is a verb, a resource and a namespace."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    rows = []
    for verb, resource, namespace in questions:
        said = kube.kubectl("auth", "can-i", verb, resource, "-n", namespace, who, check=False).stdout.strip()
        rows.append(
            {"may it": f"{verb} {resource}", "in": namespace, "answer": said.splitlines()[-1] if said else "no"}
        )
    return rows
