"""Waiting until the proxies have a changed rule, as istiod reports it.

istiod's /debug/configz says which objects it has read; /debug/syncz says for each proxy what was sent and what was
acknowledged, and with which error it was rejected. A nonce there is the number of the push and a UUID
(istio.io/istio pilot/pkg/xds, `NextVersion` and `nonce`), so a push after the change can be told from one before it.
(`istioctl experimental wait` and its distribution tracking are no longer part of Istio.)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stackbook.errors import CheckFailed
from stackbook.mesh_rules.build import Rule
from stackbook.mesh_rules.istiod import NAMESPACE as ROOT
from stackbook.mesh_rules.istiod import Ask, HasApi, connect
from stackbook.waiting import until

_UUID = 36


class Mesh(HasApi, Protocol):
    """The part of `cluster.Kube` that is needed here."""

    def json(self, *args: str, timeout: float = 60.0) -> Any:
        """The answer of a kubectl command, as JSON."""


@dataclass(frozen=True)
class Proxy:
    """What istiod says of one proxy: `push` is the newest push sent to it, `pending` the types not acknowledged."""

    name: str
    namespace: str
    kind: str
    push: int
    pending: tuple[str, ...]
    rejected: str

    @property
    def state(self) -> str:
        """In words: what it still waits for."""
        if self.rejected:
            return f"{self.name} rejects it: {self.rejected}"
        return f"{self.name}: push {self.push}, not acknowledged: {', '.join(self.pending) or 'nothing'}"


def push_number(nonce: str) -> int:
    """The number of the push that a nonce belongs to; 0 where there is none.

    >>> push_number("2026-11-23T03:45:00Z/17" + "1f0c5e3a-8d1b-4c53-9d42-6a1f0b7c9e11")
    17
    """
    number = nonce[:-_UUID].rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def parse_syncz(text: str) -> dict[str, Proxy]:
    """The proxies of an answer of /debug/syncz, by id ("reviews-v1-7d5f-x.default").

    A client that has been sent nothing is no proxy: istioctl's own queries stand in that list, too.
    """
    found = {}
    for entry in json.loads(text) or []:
        name, _, namespace = entry["proxy"].rpartition(".")
        resources: Mapping[str, Mapping[str, str]] = entry.get("resources", {})
        sent = {url.rpartition(".")[2]: status for url, status in resources.items() if status.get("sent")}
        if not sent:
            continue
        errors = [f"{kind}: {status['lastError']}" for kind, status in sorted(sent.items()) if status.get("lastError")]
        found[entry["proxy"]] = Proxy(
            name=name,
            namespace=namespace,
            kind=entry.get("proxy_type", ""),
            push=max((push_number(status["sent"]) for status in sent.values()), default=0),
            pending=tuple(sorted(kind for kind, s in sent.items() if s.get("acked", "") != s["sent"])),
            rejected="; ".join(errors)[:600],
        )
    return found


def proxies(kube: HasApi) -> dict[str, Proxy]:
    """Every proxy that is connected to an istiod, by id."""
    with connect(kube) as istiods:
        return _connected(istiods)


def _connected(istiods: Mapping[str, Ask]) -> dict[str, Proxy]:
    return {id: proxy for ask in istiods.values() for id, proxy in parse_syncz(ask("/debug/syncz")).items()}


def concerned(rules: Sequence[Rule], known: Mapping[str, Proxy]) -> set[str]:
    """The ids of the proxies that istiod must send these rules to.

    Sidecars of the rules' namespaces, unless a rule is for gateways only; gateways where a rule names one. A `Sidecar`
    object concerns only the pods that it selects, and narrows what others need: for it, none is demanded.
    A `Telemetry` of Istio's own namespace is for the whole mesh.
    """
    wanted: set[str] = set()
    for rule in rules:
        gateways = rule["spec"].get("gateways", []) if rule["kind"] == "VirtualService" else []
        namespace = rule["metadata"].get("namespace", "default")
        if rule["kind"] == "Telemetry" and namespace == ROOT:
            wanted |= set(known)
        if rule["kind"] not in ("Gateway", "Sidecar") and (not gateways or "mesh" in gateways):
            wanted |= {id for id, p in known.items() if p.kind == "sidecar" and p.namespace == namespace}
        if rule["kind"] == "Gateway" or any(name != "mesh" for name in gateways):
            wanted |= {id for id, p in known.items() if p.kind == "router"}
    return wanted


def versions(kube: Mesh, rules: Sequence[Rule]) -> dict[tuple[str, str, str], str]:
    """The resourceVersion of each rule that exists, by kind, namespace and name."""
    found: dict[tuple[str, str, str], str] = {}
    for kind, namespace in sorted({(r["kind"], r["metadata"].get("namespace", "default")) for r in rules}):
        names = {r["metadata"]["name"] for r in rules if r["kind"] == kind}
        resource = f"{kind.lower()}.{rules_group(rules, kind)}"
        for item in kube.json("get", resource, "-n", namespace)["items"]:
            if item["metadata"]["name"] in names:
                found[kind, namespace, item["metadata"]["name"]] = item["metadata"]["resourceVersion"]
    return found


def rules_group(rules: Sequence[Rule], kind: str) -> str:
    """The API group of a kind."""
    return str(next(r["apiVersion"] for r in rules if r["kind"] == kind).partition("/")[0])


def _read_by(istiod_config: str, rules: Sequence[Rule]) -> dict[tuple[str, str, str], str]:
    """The resourceVersion of each of these rules that istiod has read."""
    keys = {(r["kind"], r["metadata"].get("namespace", "default"), r["metadata"]["name"]) for r in rules}
    found = {}
    for item in json.loads(istiod_config) or []:
        key = (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
        if key in keys:
            found[key] = item["metadata"].get("resourceVersion", "")
    return found


def propagate(
    kube: Mesh, change: Callable[[], int], rules: Sequence[Rule], *, timeout: float = 20.0, only: Sequence[str] = ()
) -> float:
    """Make a change to rules and wait until the proxies have it; returns the seconds from the change until then.

    Args:
        kube: the cluster.
        change: applies or deletes the rules; returns how many objects were changed. Nothing is waited for after 0.
        rules: the objects that it changes.
        timeout: deadline in seconds.
        only: names of pods begin with one of these, where not every proxy is sent the rules.

    Raises:
        CheckFailed: a proxy rejects what it was sent; with istiod's words.
        WaitTimeout: istiod has not read the rules, or a proxy has not been sent or not acknowledged them: which.
    """
    with connect(kube) as istiods:
        before = _connected(istiods)
        wanted = {id for id in concerned(rules, before) if not only or before[id].name.startswith(tuple(only))}
        start = time.monotonic()
        if not change():
            return 0.0
        seen: list[str] = []

        def done() -> bool:
            # Asked each time: istiod itself writes into an object's status (a ServiceEntry's addresses), a new version.
            current = versions(kube, rules)
            seen[:] = [name for name, ask in istiods.items() if _read_by(ask("/debug/configz"), rules) != current]
            seen[:] = [f"{name} has not read the rules yet" for name in seen] or _late(
                _connected(istiods), wanted, before
            )
            return not seen

        until(
            done, what="the proxies have the changed rules", timeout=timeout, every=0.03, last=lambda: "; ".join(seen)
        )
        return time.monotonic() - start


def _late(now: Mapping[str, Proxy], wanted: set[str], before: Mapping[str, Proxy]) -> list[str]:
    """The state of each proxy that has not acknowledged a push after those of `before`.

    istiod keeps a rejection until the proxy accepts something newer: one that was there before says nothing yet.

    Raises:
        CheckFailed: a proxy rejects what it was sent.
    """
    newest = max((proxy.push for proxy in before.values()), default=0)
    for id, proxy in now.items():
        known = before[id].rejected if id in before else ""
        if proxy.rejected not in ("", known) and proxy.push > newest:
            raise CheckFailed(f"a proxy does not take the rules: {proxy.state}", fix="see `istioctl analyze`")
    late = [now[id].state for id in sorted(wanted & set(now)) if now[id].push <= newest or now[id].pending]
    if not wanted and all(proxy.push <= newest or proxy.pending for proxy in now.values()):
        late.append("no proxy has been sent anything")
    return late
