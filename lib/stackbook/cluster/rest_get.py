"""Plain `kubectl get … -o json` questions, answered by the API server over one kept connection.

A kubectl process takes 100 ms of a busy core to find its configuration, connect and ask; the question itself takes 10.
Waits and the traffic rules ask many times. Questions of another shape, and every failure, are left to kubectl itself.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

_CORE = ("pod", "service", "node", "namespace", "configmap", "endpoint", "event", "serviceaccount")
_GROUPS = {
    "apps/v1": ("deployment", "daemonset", "replicaset", "statefulset"),
    "batch/v1": ("job", "cronjob"),
    "discovery.k8s.io/v1": ("endpointslice",),
}
OF_ISTIO = {
    "networking.istio.io/v1": ("virtualservice", "destinationrule", "gateway", "serviceentry", "sidecar"),
    "security.istio.io/v1": ("peerauthentication",),
    "telemetry.istio.io/v1": ("telemetry",),
}
"""Istio's rules: the singular names of each group and version."""
_KINDS = {
    **{name: name.capitalize() for name in _CORE},
    "endpoint": "Endpoints", "configmap": "ConfigMap", "serviceaccount": "ServiceAccount", "daemonset": "DaemonSet",
    "deployment": "Deployment", "replicaset": "ReplicaSet", "statefulset": "StatefulSet", "job": "Job",
    "cronjob": "CronJob", "endpointslice": "EndpointSlice",
}  # fmt: skip
_CLUSTER_WIDE = ("node", "namespace")
_IRREGULAR = {"serviceentry": "serviceentries", "telemetry": "telemetries", "svc": "services"}


def plural(name: str) -> str:
    """The plural of a resource's singular name, as it stands in a path."""
    return _IRREGULAR.get(name, f"{name}s")


def _resources() -> dict[str, tuple[str, str, str, str]]:
    """What a resource may be called: singular name, group and version, plural name, kind."""
    found: dict[str, tuple[str, str, str, str]] = {}
    groups = {"v1": _CORE, **_GROUPS, **OF_ISTIO}
    for version, names in groups.items():
        for name in names:
            several = plural(name)
            entry = (name, version, several, _KINDS.get(name, ""))
            spellings = [name, several]
            if version in OF_ISTIO:  # by its full name only, as everywhere in this library
                group = version.partition("/")[0]
                spellings = [f"{name}.{group}", f"{several}.{group}"]
            found |= dict.fromkeys(spellings, entry)
    return {**found, "svc": found["services"]}


_KNOWN = _resources()


def paths(args: tuple[str, ...]) -> list[tuple[str, str, str]] | None:
    """The API's paths for the arguments of a plain `kubectl get`, with version and kind of what they return.

    None for a question of another shape: an unknown resource or flag, several names.

    >>> paths(("get", "pods", "-n", "default", "-l", "app=web"))
    [('/api/v1/namespaces/default/pods?labelSelector=app%3Dweb', 'v1', 'Pod')]
    """
    if not args or args[0] != "get":
        return None
    words: list[str] = []
    namespace: str | None = "default"
    query: dict[str, str] = {}
    rest = list(args[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-n", "--namespace", "-l", "--selector") and rest:
            value = rest.pop(0)
            if word in ("-n", "--namespace"):
                namespace = value
            else:
                query["labelSelector"] = value
        elif word in ("-A", "--all-namespaces"):
            namespace = None
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if len(words) == 1 and words[0].count("/") == 1:
        words = words[0].split("/")
    if len(words) not in (1, 2) or (len(words) == 2 and (query or namespace is None or "," in words[0])):
        return None
    found = []
    for word in words[0].split(","):
        if word not in _KNOWN:
            return None
        name, version, several, kind = _KNOWN[word]
        scope = "" if name in _CLUSTER_WIDE or namespace is None else f"/namespaces/{namespace}"
        one = f"/{words[1]}" if len(words) == 2 else ""
        path = f"/{'api' if version == 'v1' else 'apis'}/{version}{scope}/{several}{one}"
        found.append((path + (f"?{urlencode(query)}" if query else ""), version, kind))
    return found


def answer(client: Any, args: tuple[str, ...], *, timeout: float) -> dict[str, Any] | None:
    """What `kubectl ARGS -o json` prints, as an object; None where kubectl has to be asked itself.

    Args:
        client: an `ApiClient` of the official client.
        args: the arguments; see `paths`.
        timeout: seconds for each request.
    """
    from urllib3.exceptions import HTTPError

    asked = paths(args)
    if asked is None:
        return None
    answers = []
    for path, version, kind in asked:
        try:
            reply = client.rest_client.pool_manager.request(
                "GET", client.configuration.host + path, headers={"Accept": "application/json"}, timeout=timeout,
                retries=False,
            )  # fmt: skip
            if reply.status != 200:
                return None
            answers.append((json.loads(reply.data), version, kind))
        except (HTTPError, OSError, ValueError):
            return None
    first = answers[0][0]
    if "items" not in first:
        return dict(first)
    items = [{"apiVersion": version, "kind": kind, **item} for data, version, kind in answers for item in data["items"]]
    return {"apiVersion": "v1", "kind": "List", "items": items}
