"""The rules: each takes a snapshot and yields the causes that it finds. Rules send no requests and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stackbook.app.diagnose.findings import Cause, ordered
from stackbook.app.diagnose.rules import (
    certificates,
    control_plane,
    dns,
    filters,
    host,
    kubelet,
    machines,
    mesh,
    mesh_rules,
    network,
    nodes,
    observability,
    runtime,
    storage,
    workloads,
)
from stackbook.app.diagnose.snapshot import Snapshot

Rule = Callable[[Snapshot], Iterator[Cause]]

ALL: tuple[Rule, ...] = (
    *host.RULES,
    *machines.RULES,
    *runtime.RULES,
    *kubelet.RULES,
    *control_plane.RULES,
    *certificates.RULES,
    *filters.RULES,
    *network.RULES,
    *dns.RULES,
    *nodes.RULES,
    *storage.RULES,
    *mesh.RULES,
    *mesh_rules.RULES,
    *workloads.RULES,
    *observability.RULES,
)


def judge(snapshot: Snapshot) -> list[Cause]:
    """All causes that the rules find, in order."""
    return ordered(cause for rule in ALL for cause in rule(snapshot))
