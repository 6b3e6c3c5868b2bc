"""Field ownership: the lab takes over the fields that `kubectl apply` without --server-side has set.

Otherwise a field that is no longer in a manifest would stay, because its old owner still wants it. kubectl does the same when
it migrates from client-side to server-side apply.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#migration-between-client-side-and-server-side-apply
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLIENT_SIDE = ("kubectl-client-side-apply", "OpenAPI-Generator")
"""Managers whose fields are taken over: kubectl's own, and the one that older versions of this library used."""


def taken_over(entries: Sequence[Mapping[str, Any]], manager: str) -> list[dict[str, Any]] | None:
    """The managedFields of an object with `manager` as the owner of what was applied client-side; None if nothing was.

    >>> taken_over([{"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1": {"f:spec": {}}}], "lab")
    [{'manager': 'lab', 'operation': 'Apply', 'fieldsV1': {'f:spec': {}}}]
    """
    old = [entry for entry in entries if _client_side(entry)]
    if not old:
        return None
    own = [entry for entry in entries if entry.get("manager") == manager and entry.get("operation") == "Apply"]
    fields: dict[str, Any] = {}
    for entry in (*own, *old):
        fields = union(fields, entry.get("fieldsV1", {}))
    mine = {**(own or old)[0], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    others = [dict(entry) for entry in entries if entry not in old and entry not in own]
    return [mine, *others]


def union(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The union of two sets of fields.

    >>> union({"f:spec": {"f:a": {}}}, {"f:spec": {"f:b": {}}})
    {'f:spec': {'f:a': {}, 'f:b': {}}}
    """
    merged = dict(first)
    for name, below in second.items():
        merged[name] = union(merged.get(name, {}), below)
    return merged


def _client_side(entry: Mapping[str, Any]) -> bool:
    return (
        entry.get("manager") in CLIENT_SIDE and entry.get("operation") == "Update" and not entry.get("subresource", "")
    )
