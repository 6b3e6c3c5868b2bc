"""Planting each cause at a service of bookinfo. The journal of challenges has each change, so that it can always be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stackbook.lab.attempt import Attempt
from stackbook.lessons.incident import expired, releases, tokens
from stackbook.lessons.incident.lots import pick
from stackbook.mesh import rules
from stackbook.mesh.rules.builders import NETWORKING, SECURITY

Plant = Callable[[Attempt, str], None]
NAMESPACE = "default"


def _add(attempt: Attempt, *objects: rules.Rule) -> None:
    """Apply new rules, and wait until the proxies have them."""
    for item in objects:
        group = str(item["apiVersion"]).partition("/")[0]
        kind = f"{item['kind'].lower()}.{group}"
        attempt.undo_kubectl("delete", kind, item["metadata"]["name"], "-n", NAMESPACE, "--ignore-not-found")
    kube = attempt.lab.kube
    rules.propagate(kube, lambda: kube.apply(list(objects)), objects)


def _share(attempt: Attempt, place: str) -> int:
    return pick(attempt, f"{place} share", [50, 60, 70])


def _abort(attempt: Attempt, place: str) -> None:
    status = pick(attempt, f"{place} status", [500, 502, 503])
    fault = rules.fault(abort_percent=_share(attempt, place), abort_status=status)
    _add(attempt, rules.virtual_service(place, rules.route(rules.to(place), fault=fault)))


def _delay(attempt: Attempt, place: str) -> None:
    seconds = pick(attempt, f"{place} delay", [0.6, 0.8, 1.0])
    fault = rules.fault(delay_percent=_share(attempt, place), delay_seconds=seconds)
    _add(attempt, rules.virtual_service(place, rules.route(rules.to(place), fault=fault)))


def _empty_subset(attempt: Attempt, place: str) -> None:
    share = _share(attempt, place)
    there = {"name": "current", "labels": {"app": place}}
    missing = {
        "name": "next",
        "labels": {"app": place, "version": pick(attempt, f"{place} version", ["v4", "v9", "2"])},
    }
    subsets: rules.Rule = {
        "apiVersion": NETWORKING, "kind": "DestinationRule", "metadata": {"name": place, "namespace": NAMESPACE},
        "spec": {"host": place, "subsets": [there, missing]},
    }  # fmt: skip
    route = rules.route(rules.to(place, "current", weight=100 - share), rules.to(place, "next", weight=share))
    _add(attempt, subsets, rules.virtual_service(place, route))


def _no_pods(attempt: Attempt, place: str) -> None:
    def none(item: dict[str, Any]) -> dict[str, Any]:
        item["spec"]["replicas"] = 0
        return item

    attempt.change_object("deployment", f"{place}-v1", none, namespace=NAMESPACE)
    releases.wait_gone(attempt, place)


def _denied(attempt: Attempt, place: str) -> None:
    operation = {"methods": ["GET"], "paths": [f"/{place}/*"]}
    policy: rules.Rule = {
        "apiVersion": SECURITY, "kind": "AuthorizationPolicy", "metadata": {"name": place, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": place}}, "action": "DENY", "rules": [{"to": [{"operation": operation}]}]},
    }  # fmt: skip
    _add(attempt, policy)


def _plain_text(attempt: Attempt, place: str) -> None:
    strict: rules.Rule = {
        "apiVersion": SECURITY, "kind": "PeerAuthentication", "metadata": {"name": place, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": place}}, "mtls": {"mode": "STRICT"}},
    }  # fmt: skip
    _add(attempt, strict, rules.destination_rule(place, tls="DISABLE"))


_PLANTS: Mapping[str, Plant] = {
    "abort-rule": _abort,
    "delay-rule": _delay,
    "empty-subset": _empty_subset,
    "no-pods": _no_pods,
    "crash": releases.crashing,
    "denied": _denied,
    "plain-text": _plain_text,
    "expired-certificate": expired.certificate,
    "full-disk": releases.full_disk,
    "slow-store": releases.slow_store,
    "wrong-clock": lambda attempt, place: _add(attempt, tokens.demanded(attempt, place)),
}


def plant(attempt: Attempt, cause: str, place: str) -> None:
    """Plant a cause at a service."""
    _PLANTS[cause](attempt, place)


def kinds() -> list[str]:
    """The causes that can be planted."""
    return list(_PLANTS)
