"""Istio's rules created, replaced and deleted over one kept connection, as `kubectl apply` and `kubectl delete` do it.

kubectl takes 0.3 s of a busy machine for one rule, a request 10 ms; a chapter changes rules sixty times. What is no rule,
what kubectl has applied (it keeps the last form in an annotation), and every failure is left to kubectl itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.cluster.rest_get import OF_ISTIO, plural

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def paths(objects: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]] | None:
    """For each object the API's path of its kind in its namespace, and its own; None where one is no rule of Istio.

    >>> rule = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "a"}, "spec": {}}
    >>> paths([rule])[0][1]
    '/apis/networking.istio.io/v1/namespaces/default/gateways/a'
    """
    found = []
    for item in objects:
        version, name = str(item.get("apiVersion")), str(item.get("kind")).lower()
        if name not in OF_ISTIO.get(version, ()) or "name" not in item.get("metadata", {}):
            return None
        kind = f"/apis/{version}/namespaces/{item['metadata'].get('namespace', 'default')}/{plural(name)}"
        found.append((kind, f"{kind}/{item['metadata']['name']}"))
    return found


def apply(client: Any, objects: Sequence[Mapping[str, Any]], *, timeout: float) -> list[str] | None:
    """Create or replace objects; one line for each, as kubectl prints it. None where kubectl has to do it itself.

    An object is replaced by its new spec, with labels and annotations added to those that it has.

    Args:
        client: an `ApiClient` of the official client.
        objects: complete ones, with apiVersion and kind.
        timeout: seconds for each request.
    """
    known = paths(objects)
    if not known:
        return None
    lines = []
    for item, (kind, path) in zip(objects, known, strict=True):
        status, there = _request(client, "GET", path, timeout)
        if status == 404:
            done, word = _request(client, "POST", kind, timeout, dict(item))[0] == 201, "created"
        elif status != 200 or _LAST_APPLIED in there["metadata"].get("annotations", {}):
            return None
        else:
            wanted = merged(there, item)
            same = wanted == there
            done = same or _request(client, "PUT", path, timeout, wanted)[0] == 200
            word = "unchanged" if same else "configured"
        if not done:
            return None
        lines.append(f"{_named(item)} {word}")
    return lines


def merged(there: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the cluster with the spec, the labels and the annotations of another."""
    metadata = dict(there["metadata"])
    for name in ("labels", "annotations"):
        if added := item["metadata"].get(name):
            metadata[name] = {**metadata.get(name, {}), **added}
    return {**there, "metadata": metadata, "spec": item["spec"]}


def delete(client: Any, objects: Sequence[Mapping[str, Any]], *, timeout: float) -> list[str] | None:
    """Delete objects; a line for each that was there, as kubectl prints it. None where kubectl has to do it itself."""
    known = paths(objects)
    if not known:
        return None
    lines = []
    for item, (_, path) in zip(objects, known, strict=True):
        status, _ = _request(client, "DELETE", path, timeout)
        if status not in (200, 404):
            return None
        if status == 200:
            lines.append(f'{_named(item)} "{item["metadata"]["name"]}" deleted')
    return lines


def _named(item: Mapping[str, Any]) -> str:
    return f"{item['kind'].lower()}.{item['apiVersion'].partition('/')[0]}/{item['metadata']['name']}"


def _request(
    client: Any, method: str, path: str, timeout: float, body: Mapping[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and answer; status 0 where there was none."""
    from urllib3.exceptions import HTTPError

    try:
        reply = client.rest_client.pool_manager.request(
            method, client.configuration.host + path, body=None if body is None else json.dumps(body),
            headers={"Accept": "application/json", "Content-Type": "application/json"}, timeout=timeout, retries=False,
        )  # fmt: skip
        return int(reply.status), dict(json.loads(reply.data))
    except (HTTPError, OSError, ValueError):
        return 0, {}
