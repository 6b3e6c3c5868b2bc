"""The findings of a diagnosis: causes, in the order in which to look at them."""

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
"""The layers from the ground up: a fault in one makes the layers above it fail."""


@dataclass(frozen=True)
class Cause:
    """One probable cause.

    Args:
        name: short and stable, for scripts: `kubelet-stopped`.
        layer: one of LAYERS.
        claim: what is wrong, in one line.
        evidence: the observations that show it, one line each.
        fix: a command.
        follows: it may only be a consequence of another cause, and is listed after independent ones.
        weight: the order within a layer, lowest first.
    """

    name: str
    layer: str
    claim: str
    evidence: tuple[str, ...] = ()
    fix: str = ""
    follows: bool = False
    weight: int = 0

    def plain(self) -> dict[str, Any]:
        """The cause as JSON, with secrets masked."""
        return {
            "name": self.name,
            "layer": self.layer,
            "claim": redact(self.claim),
            "evidence": [redact(line) for line in self.evidence],
            "fix": redact(self.fix),
            "consequence": self.follows,
        }


def ordered(causes: Iterable[Cause]) -> list[Cause]:
    """Independent causes first, then possible consequences, each group from the ground up and each cause once."""
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
