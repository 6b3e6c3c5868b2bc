"""Applying rules for the length of a block, and leaving the mesh with the rules that it had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import yaml

from stackbook.core.errors import InputError
from stackbook.core.results import Result
from stackbook.mesh.rules.builders import Rule
from stackbook.mesh.rules.propagation import Mesh, propagate
from stackbook.mesh.rules.validation import check, inventory

KINDS = {
    "VirtualService": "virtualservices.networking.istio.io",
    "DestinationRule": "destinationrules.networking.istio.io",
    "Gateway": "gateways.networking.istio.io",
    "ServiceEntry": "serviceentries.networking.istio.io",
    "Sidecar": "sidecars.networking.istio.io",
    "PeerAuthentication": "peerauthentications.security.istio.io",
}
"""The kinds that steer traffic, with the name under which kubectl lists them."""


class Cluster(Mesh, Protocol):
    """The part of `cluster.Kube` that is needed here."""

    def apply(self, manifest: str | Rule | Sequence[Rule]) -> int:
        """Apply objects; returns how many were changed."""

    def delete(self, manifest: str | Rule | Sequence[Rule]) -> int:
        """Delete objects; returns how many were there."""

    def kubectl(self, *args: str, stdin: str | None = None) -> Result:
        """Run kubectl."""


def key(rule: Rule) -> tuple[str, str]:
    """What tells a rule from others of its namespace."""
    return rule["kind"], rule["metadata"]["name"]


def found(kube: Cluster, namespace: str = "default") -> list[Rule]:
    """The traffic rules of a namespace, without what the API server adds to them."""
    items = kube.json("get", ",".join(KINDS.values()), "-n", namespace)["items"]
    return sorted((_plain(item) for item in items), key=key)


def _plain(item: dict[str, Any]) -> Rule:
    own = {"name", "namespace", "labels", "annotations"}
    metadata = {name: value for name, value in item["metadata"].items() if name in own}
    notes = {k: v for k, v in metadata.pop("annotations", {}).items() if not k.startswith("kubectl.kubernetes.io/")}
    if notes:
        metadata["annotations"] = notes
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item["spec"]}


def restore(kube: Cluster, before: Sequence[Rule], namespace: str = "default") -> int:
    """Bring the traffic rules of a namespace back to those of `before`; returns how many were changed."""
    return _bring(kube, before, (), namespace)


def _bring(
    kube: Cluster,
    before: Sequence[Rule],
    own: Sequence[Rule],
    namespace: str,
    *,
    timeout: float = 20.0,
) -> int:
    """Make the traffic rules of a namespace those of `before`, and `own` in place of those with the same names."""
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
        if changed:  # replace, not apply: what a patch added goes as well
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
    kube: Cluster, *, namespace: str = "default", checked: bool = True, timeout: float = 20.0
) -> Iterator[Callable[..., int]]:
    """Sets of rules in force one after the other, each in place of the one before: half the changes of `applied` for each.

    The block gets a function that takes a set's rules (objects, or manifests in YAML; none at all for the rules found) and
    returns how many rules were changed, once the proxies have them. After the block the namespace has the traffic rules
    that it had before.

    Args:
        kube: the cluster.
        namespace: that of the rules.
        checked: refuse rules that the mesh cannot carry out (see `check`); off only to show what they do.
        timeout: deadline for the proxies, in seconds, for each set.

    Raises:
        InputError, CheckFailed, WaitTimeout: by the function, as `applied` raises them.
    """
    before = found(kube, namespace)
    known = inventory(kube, namespace) if checked else None  # now: what one set brings is no help to the next

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
    namespace: str = "default",
    checked: bool = True,
    timeout: float = 20.0,
    only: Sequence[str] = (),
) -> Iterator[float]:
    """Rules in force while the block runs; afterwards the namespace has the traffic rules that it had before.

    That also holds for what the block itself changes, and after an error or an interrupt. The block starts once the
    proxies have the rules; its value is the seconds that this took.

    Args:
        kube: the cluster.
        rules: objects, or manifests in YAML.
        namespace: theirs.
        checked: refuse rules that the mesh cannot carry out (see `check`); off only to show what they do.
        timeout: deadline for the proxies, in seconds.
        only: see `propagate`.

    Raises:
        InputError: the rules do not fit; nothing was applied.
        CheckFailed, WaitTimeout: see `propagate`; the rules are taken back.
    """
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
    """Rules as objects, copied: those of a manifest in YAML one by one.

    Raises:
        InputError: a text is no YAML, or what is in it has no kind or no name.
    """
    texts = [rule if isinstance(rule, str) else json.dumps(rule) for rule in rules]
    try:
        found = [item for text in texts for item in yaml.safe_load_all(text) if item]
    # Beside its own errors, a date that is none, or a list as a key.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"a rule is no YAML: {' '.join(str(error).split())[:200]}", fix="correct the YAML at that place"
        ) from error
    for item in found:
        named = isinstance(item, dict) and item.get("kind") and isinstance(item.get("metadata"), dict)
        if not named or not item["metadata"].get("name"):
            raise InputError(f"no rule of Istio: {str(item)[:80]!r}", fix="give it kind, metadata.name and spec")
    return found


def as_yaml(*rules: Rule) -> str:
    """Rules as a manifest, with the fields in the order in which people write them."""
    return "---\n".join(yaml.safe_dump(rule, sort_keys=False, default_flow_style=False) for rule in rules)
