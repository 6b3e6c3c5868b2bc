"""Applying rules while a block runs, and restoring the mesh's earlier rules afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import yaml

from stackbook.config.namespaces import here
from stackbook.core.errors import InputError
from stackbook.core.results import Result
from stackbook.mesh.rules.builders import Rule
from stackbook.mesh.rules.propagation import PROPAGATION_SECONDS, Mesh, propagate
from stackbook.mesh.rules.validation import check, inventory

KINDS = {
    "VirtualService": "virtualservices.networking.istio.io",
    "DestinationRule": "destinationrules.networking.istio.io",
    "Gateway": "gateways.networking.istio.io",
    "ServiceEntry": "serviceentries.networking.istio.io",
    "Sidecar": "sidecars.networking.istio.io",
    "PeerAuthentication": "peerauthentications.security.istio.io",
}
"""The kinds of traffic rules, with the name under which kubectl lists them."""


class Cluster(Mesh, Protocol):
    """The part of `cluster.Kube` that this module needs."""

    def apply(self, manifest: str | Rule | Sequence[Rule]) -> int:
        """Apply objects; returns how many were changed."""

    def delete(self, manifest: str | Rule | Sequence[Rule]) -> int:
        """Delete objects; returns how many existed."""

    def kubectl(self, *args: str, stdin: str | None = None) -> Result:
        """Run kubectl."""


def key(rule: Rule) -> tuple[str, str]:
    """Kind and name: they identify a rule within its namespace."""
    return rule["kind"], rule["metadata"]["name"]


def found(kube: Cluster, namespace: str = "") -> list[Rule]:
    """The traffic rules of a namespace (by default the workloads'), without the fields that the API server adds."""
    items = kube.json("get", ",".join(KINDS.values()), "-n", namespace or here().workloads)["items"]
    return sorted((_plain(item) for item in items), key=key)


def _plain(item: dict[str, Any]) -> Rule:
    own = {"name", "namespace", "labels", "annotations"}
    metadata = {name: value for name, value in item["metadata"].items() if name in own}
    notes = {k: v for k, v in metadata.pop("annotations", {}).items() if not k.startswith("kubectl.kubernetes.io/")}
    if notes:
        metadata["annotations"] = notes
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item["spec"]}


def restore(kube: Cluster, before: Sequence[Rule], namespace: str = "") -> int:
    """Restore the traffic rules of a namespace to `before`; returns how many changed."""
    return _bring(kube, before, (), namespace or here().workloads)


def _bring(
    kube: Cluster,
    before: Sequence[Rule],
    own: Sequence[Rule],
    namespace: str,
    *,
    timeout: float = PROPAGATION_SECONDS,
) -> int:
    """Set the traffic rules of a namespace to `before`, with `own` in place of those with the same names."""
    now = {key(rule): rule for rule in found(kube, namespace)}
    mine = {key(rule): rule for rule in own}
    then = {name: rule for rule in before if (name := key(rule)) not in mine}
    added = [rule for name, rule in now.items() if name not in then and name not in mine]
    missing = [rule for name, rule in then.items() if name not in now]
    missing += [rule for name, rule in mine.items() if now.get(name) != rule]
    changed = [rule for name, rule in then.items() if name in now and now[name] != rule]
    if not (added or missing or changed):
        return 0

    def change() -> int:
        if changed:  # replace, not apply: this also removes what a patch added
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": changed})
            kube.kubectl("replace", "-f", "-", stdin=text)
        if missing:
            kube.apply(missing)
        if added:
            kube.delete(added)
        return len(added) + len(missing) + len(changed)

    propagate(kube, change, [*added, *missing, *changed], timeout=timeout)
    return len(added) + len(missing) + len(changed)


@contextmanager
def in_turn(
    kube: Cluster, *, namespace: str = "", checked: bool = True, timeout: float = PROPAGATION_SECONDS
) -> Iterator[Callable[..., int]]:
    """Apply several sets of rules, each in place of the one before: each takes half as many changes as with `applied`.

    The block gets a function that takes a set's rules (objects, or manifests in YAML; no argument restores the earlier rules).
    It waits until the proxies have them, and returns how many rules changed. After the block, the namespace has its earlier
    traffic rules again.

    Args:
        kube: the cluster.
        namespace: the namespace of the rules; if empty, that of the workloads.
        checked: refuse rules that the mesh cannot carry out (see `check`); false only to show what such rules do.
        timeout: deadline for the proxies, in seconds, for each set.

    Raises:
        InputError, CheckFailed, WaitTimeout: the function raises them, for the same reasons as `applied`.
    """
    namespace = namespace or here().workloads
    before = found(kube, namespace)
    # Read before any set is applied: the subsets of one set must not make the next one valid.
    known = inventory(kube, namespace) if checked else None

    def use(*rules: Rule | str) -> int:
        objects = _placed(rules, namespace)
        if known:
            check(objects, known)
        return _bring(kube, before, objects, namespace, timeout=timeout)

    try:
        yield use
    finally:
        restore(kube, before, namespace)


@contextmanager
def applied(
    kube: Cluster,
    *rules: Rule | str,
    namespace: str = "",
    checked: bool = True,
    timeout: float = PROPAGATION_SECONDS,
    only: Sequence[str] = (),
) -> Iterator[float]:
    """Apply rules while the block runs; afterwards, restore the namespace's earlier traffic rules.

    This also undoes what the block itself changes, and it happens after an error or an interrupt, too. The block starts when
    the proxies have the rules; its value is how many seconds that took.

    Args:
        kube: the cluster.
        rules: objects, or manifests in YAML.
        namespace: the namespace of the rules; if empty, that of the workloads.
        checked: refuse rules that the mesh cannot carry out (see `check`); false only to show what such rules do.
        timeout: deadline for the proxies, in seconds.
        only: see `propagate`.

    Raises:
        InputError: the rules do not fit; nothing was applied.
        CheckFailed, WaitTimeout: see `propagate`; the rules are removed again.
    """
    namespace = namespace or here().workloads
    objects = _placed(rules, namespace)
    if checked:
        check(objects, inventory(kube, namespace))
    before = found(kube, namespace)
    try:
        yield propagate(kube, lambda: kube.apply(objects), objects, timeout=timeout, only=only) if objects else 0.0
    finally:
        restore(kube, before, namespace)


def _placed(rules: Sequence[Rule | str], namespace: str) -> list[Rule]:
    objects = parsed(*rules)
    for rule in objects:
        rule["metadata"].setdefault("namespace", namespace)
    return objects


def parsed(*rules: Rule | str) -> list[Rule]:
    """Copy rules as objects; a manifest in YAML becomes one object for each document.

    Raises:
        InputError: a text is not YAML, or a document in it has no kind or no name.
    """
    texts = [rule if isinstance(rule, str) else json.dumps(rule) for rule in rules]
    try:
        found = [item for text in texts for item in yaml.safe_load_all(text) if item]
    # ValueError and TypeError: an invalid date, or a list as a key.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"a rule is not valid YAML: {' '.join(str(error).split())[:200]}", fix="correct the YAML"
        ) from error
    for item in found:
        named = isinstance(item, dict) and item.get("kind") and isinstance(item.get("metadata"), dict)
        if not named or not item["metadata"].get("name"):
            raise InputError(
                f"this is not an Istio rule: {str(item)[:80]!r}", fix="give it kind, metadata.name and spec"
            )
    return found


def as_yaml(*rules: Rule) -> str:
    """Rules as a manifest, with the fields in the order in which people write them."""
    return "---\n".join(yaml.safe_dump(rule, sort_keys=False, default_flow_style=False) for rule in rules)
