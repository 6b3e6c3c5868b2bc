"""What a diagnosis says: causes, in the order in which to look at them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stackbook.core.redact import redact

LAYERS = (
    "this host",
    "machines",
    "container runtime",
    "kubelet",
    "control plane",
    "certificates",
    "pod network",
    "DNS",
    "storage",
    "mesh",
    "workloads",
    "observability",
)
"""From the ground up: what is broken further down makes what stands on it fail."""


@dataclass(frozen=True)
class Cause:
    """One probable cause.

    Args:
        name: short and stable, for scripts: `kubelet-stopped`.
        layer: one of LAYERS.
        claim: what is wrong, in one line.
        evidence: what was read that says so, a line each.
        fix: a command.
        follows: it may be a mere consequence of another cause: it comes after those that stand for themselves.
        weight: the order within a layer, the lowest first.
    """

    name: str
    layer: str
    claim: str
    evidence: tuple[str, ...] = ()
    fix: str = ""
    follows: bool = False
    weight: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON has it, secrets masked."""
        return {
            "name": self.name,
            "layer": self.layer,
            "claim": redact(self.claim),
            "evidence": [redact(line) for line in self.evidence],
            "fix": redact(self.fix),
            "consequence": self.follows,
        }


def ordered(causes: Iterable[Cause]) -> list[Cause]:
    """The causes that stand for themselves first, and within each kind from the ground up; each once."""
    once = {(cause.name, cause.claim): cause for cause in causes}
    return sorted(once.values(), key=lambda c: (c.follows, LAYERS.index(c.layer), c.weight))


def lines(causes: Iterable[Cause]) -> list[str]:
    """The causes for a terminal."""
    text: list[str] = []
    for number, cause in enumerate(causes, 1):
        said = cause.plain()
        mark = ", probably a consequence" if cause.follows else ""
        text.append(f"{number}. {said['claim']}  [{cause.layer}: {cause.name}{mark}]")
        text += [f"     seen: {line}" for line in said["evidence"]]
        text += [f"     fix:  {said['fix']}"] if cause.fix else []
    return text
