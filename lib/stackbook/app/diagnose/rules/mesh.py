"""The mesh: istiod, its webhooks, which pods get a sidecar, what proxies refuse."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.snapshot import Snapshot, dig, named, space
from stackbook.mesh import istio

LAYER = "mesh"
_FIX = "-n istio-system scale deployment istiod --replicas=1"


def istiod(snapshot: Snapshot) -> Iterator[Cause]:
    """If Istio was installed, istiod exists and is available."""
    if not snapshot.cluster.listed("deployments") or not _installed(snapshot):
        return
    found = _istiod(snapshot)
    if not found:
        yield Cause("istiod-missing", LAYER, "there is no istiod: proxies get no configuration, new pods no sidecar",
                    ("istio-system has no deployment istiod",), snapshot.stackbook("run", "--only 05 --again"),
                    weight=0)  # fmt: skip
    elif dig(found, "spec", "replicas", default=1) == 0:
        yield Cause("istiod-scaled", LAYER, "istiod is scaled to 0: proxies get no configuration, new pods no sidecar",
                    ("deployment istiod: replicas 0",), snapshot.kubectl(_FIX), weight=0)  # fmt: skip
    elif not dig(found, "status", "availableReplicas", default=0):
        yield Cause("istiod-unavailable", LAYER, "istiod is not available", ("availableReplicas 0",),
                    snapshot.kubectl("-n istio-system describe pods -l app=istiod"), follows=True, weight=0)  # fmt: skip


def _installed(snapshot: Snapshot) -> bool:
    hooks = [*snapshot.cluster.items("mutating"), *snapshot.cluster.items("validating")]
    return any("istio" in named(hook) for hook in hooks) or bool(_istiod(snapshot))


def _istiod(snapshot: Snapshot) -> dict[str, Any]:
    return next((d for d in snapshot.cluster.items("deployments")
                 if named(d) == "istiod" and space(d) == istio.NAMESPACE), {})  # fmt: skip


def webhooks(snapshot: Snapshot) -> Iterator[Cause]:
    """Each webhook's Service exists and has a ready endpoint; istiod's webhooks trust the mesh's CA."""
    if not snapshot.cluster.listed("services") or not snapshot.cluster.listed("endpointslices"):
        return
    services = {(space(s), named(s)) for s in snapshot.cluster.items("services")}
    for kind in ("mutating", "validating"):
        for item in snapshot.cluster.items(kind):
            what = f"{kind}webhookconfiguration {named(item)}"
            for hook in item.get("webhooks", []):
                target = dig(hook, "clientConfig", "service", default={})
                if not target:
                    continue
                place = (str(target.get("namespace")), str(target.get("name")))
                policy = hook.get("failurePolicy", "Fail")
                effect = (
                    "the API server refuses the objects that it should check"
                    if policy == "Fail"
                    else "the objects that it should check pass unchanged"
                )
                if place not in services:
                    problem = "there is no such Service"
                elif not _ready(snapshot, *place):
                    problem = "the Service has no ready endpoint"
                else:
                    if place == (istio.NAMESPACE, "istiod") and _strange_ca(snapshot, hook):
                        yield Cause("webhook-ca", LAYER, f"the {what} does not trust istiod's certificate",
                                    (f"webhook {hook.get('name')}: its caBundle is not the mesh's CA", effect),
                                    snapshot.kubectl(f"get {what.replace(' ', '/')} -o yaml"), weight=1)  # fmt: skip
                        break
                    continue
                to = f"{place[0]}/{place[1]}"
                yield Cause("webhook-service", LAYER, f"the {what} cannot be called: {effect}",
                            (f"webhook {hook.get('name')}, failurePolicy {policy}, Service {to}: {problem}",),
                            snapshot.kubectl(f"get {what.replace(' ', '/')}; {snapshot.kubectl(f'-n {place[0]} get pods')}"),
                            follows=place == (istio.NAMESPACE, "istiod") and place in services, weight=2)  # fmt: skip
                break


def _ready(snapshot: Snapshot, namespace: str, service: str) -> bool:
    for piece in snapshot.cluster.items("endpointslices"):
        if space(piece) == namespace and dig(piece, "metadata", "labels", "kubernetes.io/service-name") == service:
            for end in piece.get("endpoints") or []:
                if dig(end, "conditions", "ready", default=True):
                    return True
    return False


def _strange_ca(snapshot: Snapshot, hook: dict[str, Any]) -> bool:
    """Whether a webhook's caBundle differs from all CAs that the mesh gives its namespaces, if those are known."""
    roots = [str(dig(c, "data", "root-cert.pem", default="")).strip() for c in snapshot.cluster.items("mesh roots")]
    try:
        bundle = base64.b64decode(dig(hook, "clientConfig", "caBundle", default="")).decode(errors="replace").strip()
    except binascii.Error:
        bundle = ""
    known = [root for root in roots if root]
    return bool(known) and not (bundle and any(root in bundle or bundle in root for root in known))


def injection(snapshot: Snapshot) -> Iterator[Cause]:
    """A namespace whose pods have sidecars still injects them into new pods."""
    if not _installed(snapshot):
        return
    labels = {named(n): dig(n, "metadata", "labels", default={}) for n in snapshot.cluster.items("namespaces")}
    for namespace, with_sidecar in _sidecars(snapshot).items():
        if not with_sidecar or namespace not in labels:
            continue
        found = labels[namespace]
        if found.get("istio-injection") != "enabled" and "istio.io/rev" not in found:
            yield Cause("injection-off", LAYER, f"new pods of the namespace {namespace} get no sidecar",
                        (f"{len(with_sidecar)} of its pods have one: {', '.join(sorted(with_sidecar)[:3])}",
                         f"its label istio-injection is {found.get('istio-injection', 'missing')}"),
                        snapshot.kubectl(f"label namespace {namespace} istio-injection=enabled --overwrite"),
                        weight=3)  # fmt: skip


def _sidecars(snapshot: Snapshot) -> dict[str, list[str]]:
    """The pods with a sidecar that their namespace gave them, by namespace."""
    found: dict[str, list[str]] = {}
    for pod in snapshot.cluster.items("pods"):
        own = dig(pod, "metadata", "labels", "sidecar.istio.io/inject") == "true"
        if space(pod) != istio.NAMESPACE and not own and istio.pods_with_sidecar([pod])[named(pod)]:
            found.setdefault(space(pod), []).append(named(pod))
    return found


def refusals(snapshot: Snapshot) -> Iterator[Cause]:
    """No proxy refuses what istiod sends it now; refusals that are only in its log do not count."""
    by_reason: dict[str, list[str]] = {}
    for name, answer in snapshot.cluster.answers.items():
        if name.startswith("proxy ") and answer.ok:
            for reason in _errors(answer.json()):
                by_reason.setdefault(reason, []).append(name.removeprefix("proxy "))
    for reason, pods in by_reason.items():
        first = pods[0]
        namespace, _, pod = first.partition("/")
        yield Cause("config-refused", LAYER, f"{len(pods)} proxies refuse configuration, including {first}", (reason,),
                    f"{snapshot.kubectl(f'-n {namespace} logs {pod} -c istio-proxy | grep rejected')}; "
                    f"{snapshot.kubectl('get envoyfilters -A')}", weight=4)  # fmt: skip


def _errors(data: Any) -> list[str]:
    """The details of each `error_state` in a dump of Envoy's configuration."""
    found: dict[str, None] = {}
    todo = [data]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if isinstance(item.get("error_state"), dict):
                details = str(item["error_state"].get("details") or json.dumps(item["error_state"]))
                found[" ".join(details.split())[:300]] = None
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return list(found)


RULES = (istiod, webhooks, injection, refusals)
