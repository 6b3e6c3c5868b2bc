"""Istio's traffic rules: build them, check them against the mesh, apply them while a block runs, and remove them.

>>> rule = virtual_service("reviews", route(*split("reviews", {"v1": 50, "v3": 50})))
>>> [entry["weight"] for entry in rule["spec"]["http"][0]["route"]]
[50, 50]
"""

from stackbook.mesh.rules.apply import KINDS, applied, as_yaml, found, in_turn, parsed, restore
from stackbook.mesh.rules.builders import (
    Rule,
    destination_rule,
    duration,
    fault,
    gateway,
    peer_authentication,
    percent,
    route,
    seconds,
    service_entry,
    sidecar,
    split,
    through_egress,
    to,
    virtual_service,
)
from stackbook.mesh.rules.propagation import Proxy, propagate, proxies
from stackbook.mesh.rules.validation import Inventory, check, inventory

__all__ = [
    "KINDS",
    "Inventory",
    "Proxy",
    "Rule",
    "applied",
    "as_yaml",
    "check",
    "destination_rule",
    "duration",
    "fault",
    "found",
    "gateway",
    "in_turn",
    "inventory",
    "parsed",
    "peer_authentication",
    "percent",
    "propagate",
    "proxies",
    "restore",
    "route",
    "seconds",
    "service_entry",
    "sidecar",
    "split",
    "through_egress",
    "to",
    "virtual_service",
]
