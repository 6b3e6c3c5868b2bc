"""Every object of a cluster, with a mark that changes when somebody changes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from stackbook.cluster.kube import Kube

# What the cluster itself writes all the time, or on behalf of a namespace's Services and pods.
BY_ITSELF = frozenset({"events", "events.events.k8s.io", "leases.coordination.k8s.io", "endpoints", "endpointslices.discovery.k8s.io",
                       "componentstatuses"})  # fmt: skip
_LEADER = "control-plane.alpha.kubernetes.io/leader"  # which of istiod's replicas leads, renewed all the time


def objects(kube: Kube, *, without: Collection[str] = (), only: Collection[str] = ()) -> dict[str, str]:
    """ "Kind namespace/name" → uid and a mark: the generation, or a digest of what a user sets.

    Args:
        kube: the cluster, with an administrator's rights.
        without: namespaces to leave out, and the cluster's own objects about them.
        only: the only namespaces to look at; empty for all.
    """
    kinds = sorted(set(kube.kubectl("api-resources", "--verbs=list", "-o", "name").lines) - BY_ITSELF)
    found: dict[str, str] = {}
    answer = kube.kubectl("get", ",".join(kinds), "-A", "-o", "json", timeout=120, secret=True)
    for item in json.loads(answer.reveal())["items"]:
        meta = item["metadata"]
        space = meta.get("namespace", "")
        if _about(item) & set(without) or (only and space not in only) or _ends_by_itself(item):
            continue
        found[f"{item['kind']} {space}/{meta['name']}"] = f"{meta.get('uid', '')} {_mark(item)}"
    return found


def _ends_by_itself(item: dict[str, Any]) -> bool:
    """Whether it is one of kubeadm's bootstrap tokens, which expire, or the object that is signed with them."""
    token = item.get("type") == "bootstrap.kubernetes.io/token"
    return token or (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "cluster-info")


def _about(item: dict[str, Any]) -> set[str]:
    """The namespaces that an object is in or about: a Service's IPAddress is in none."""
    spaces = {item["metadata"].get("namespace", "")}
    if item["kind"] == "Namespace":
        spaces.add(item["metadata"]["name"])
    if item["kind"] == "IPAddress":
        spaces.add(item["spec"]["parentRef"].get("namespace", ""))
    return spaces


def _mark(item: dict[str, Any]) -> str:
    meta = item["metadata"]
    annotations = {name: text for name, text in (meta.get("annotations") or {}).items() if name != _LEADER}
    noted = {"labels": meta.get("labels"), "annotations": annotations, "generation": meta.get("generation")}
    set_by_users = {k: v for k, v in item.items() if k not in ("metadata", "status")}
    text = json.dumps([noted, set_by_users], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
