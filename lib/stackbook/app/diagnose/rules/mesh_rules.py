"""Traffic rules that name hosts, subsets or gateways that do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.workloads import matches
from stackbook.app.diagnose.snapshot import Snapshot, dig, named, space

LAYER = "mesh"


def full_name(host: str, namespace: str) -> str:
    """A host's full name in the mesh.

    >>> full_name("reviews", "default"), full_name("a.b", "default"), full_name("a.b.svc.cluster.local", "x")
    ('reviews.default.svc.cluster.local', 'a.b', 'a.b.svc.cluster.local')
    """
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def _destinations(rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = rule.get("spec") or {}
    for kind in ("http", "tcp", "tls"):
        for route in spec.get(kind) or []:
            for one in route.get("route") or []:
                yield one.get("destination") or {}
            if route.get("mirror"):
                yield route["mirror"]


def destinations(snapshot: Snapshot) -> Iterator[Cause]:
    """Each destination of a VirtualService exists, and so does its subset."""
    if not snapshot.cluster.listed("services") or not snapshot.cluster.listed("virtualservices"):
        return
    known = {f"{named(s)}.{space(s)}.svc.cluster.local" for s in snapshot.cluster.items("services")}
    known |= {h for e in snapshot.cluster.items("serviceentries") for h in dig(e, "spec", "hosts", default=[])}
    subsets: dict[str, set[str]] = {}
    for rule in snapshot.cluster.items("destinationrules"):
        host = full_name(str(dig(rule, "spec", "host", default="")), space(rule))
        subsets.setdefault(host, set()).update(s["name"] for s in dig(rule, "spec", "subsets", default=[]))
    for rule in snapshot.cluster.items("virtualservices"):
        who = f"{space(rule)}/{named(rule)}"
        edit = snapshot.kubectl(f"-n {space(rule)} edit virtualservice {named(rule)}")
        for target in _destinations(rule):
            host, subset = full_name(str(target.get("host", "")), space(rule)), target.get("subset")
            if host.endswith(".svc.cluster.local") and host not in known:
                yield Cause("route-host", LAYER, f"the VirtualService {who} sends to a host that does not exist",
                            (f"destination {target.get('host')}: no such Service",), edit, weight=5)  # fmt: skip
            elif subset and subset not in subsets.get(host, set()):
                there = ", ".join(sorted(subsets.get(host, set()))) or "none"
                yield Cause("route-subset", LAYER, f"the VirtualService {who} sends to a subset that does not exist",
                            (f"destination {target.get('host')}, subset {subset}; its DestinationRules have: {there}",),
                            edit, weight=5)  # fmt: skip


def gateways(snapshot: Snapshot) -> Iterator[Cause]:
    """Each Gateway's selector matches pods, and each VirtualService's gateways exist."""
    if not snapshot.cluster.listed("pods") or not snapshot.cluster.listed("gateways"):
        return
    pods = snapshot.cluster.items("pods")
    there = set()
    for gateway in snapshot.cluster.items("gateways"):
        there.add(f"{space(gateway)}/{named(gateway)}")
        selector = dig(gateway, "spec", "selector", default={})
        if not any(matches(selector, dig(p, "metadata", "labels", default={})) for p in pods):
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            who = f"{space(gateway)}/{named(gateway)}"
            yield Cause("gateway-selector", LAYER, f"the selector of the Gateway {who} matches no pod",
                        (f"selector {labels}",), snapshot.kubectl(f"-n {space(gateway)} edit gateway.networking.istio.io "
                                                                  f"{named(gateway)}"), weight=5)  # fmt: skip
    for rule in snapshot.cluster.items("virtualservices"):
        for name in dig(rule, "spec", "gateways", default=[]):
            place = name if "/" in name else f"{space(rule)}/{name}"
            if name != "mesh" and place not in there:
                yield Cause("route-gateway", LAYER, f"the VirtualService {space(rule)}/{named(rule)} names a Gateway that "
                            "does not exist", (f"gateway {name}",),
                            snapshot.kubectl("get gateways.networking.istio.io -A"), weight=5)  # fmt: skip


RULES = (destinations, gateways)
