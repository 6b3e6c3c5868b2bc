"""What is wrong with a lab, and why: read it once, apply rules, order the causes from the ground up. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stackbook.app.diagnose.collection import collect
from stackbook.app.diagnose.findings import LAYERS, Cause, lines
from stackbook.app.diagnose.layers import looked_at
from stackbook.app.diagnose.rules import judge
from stackbook.app.diagnose.snapshot import Snapshot
from stackbook.config.profile import Profile

__all__ = ["LAYERS", "Cause", "Diagnosis", "diagnose", "judge"]


@dataclass(frozen=True)
class Diagnosis:
    """The causes in order, and the snapshot in which they were found."""

    causes: list[Cause]
    snapshot: Snapshot

    @property
    def names(self) -> list[str]:
        """The causes' names, in order."""
        return [cause.name for cause in self.causes]

    def plain(self) -> dict[str, Any]:
        """The diagnosis as JSON, with secrets masked."""
        return {
            "profile": self.snapshot.profile.name,
            "seconds": round(self.snapshot.seconds, 1),
            "causes": [cause.plain() for cause in self.causes],
            "looked at": looked_at(self.snapshot),
        }

    def lines(self) -> list[str]:
        """The diagnosis for a terminal."""
        if self.causes:
            return ["probable causes, in the order in which to check them:", "", *lines(self.causes)]
        found = looked_at(self.snapshot)
        return ["no problem was found; looked at:", *(f"  {row['layer']}: {row['looked at']}" for row in found)]


def diagnose(profile: Profile, word: str = "embedded") -> Diagnosis:
    """Read a lab in any state, and say what is probably wrong.

    Args:
        profile: the lab's profile.
        word: how the reader names the profile; the fixes use the same name.
    """
    snapshot = collect(profile, word)
    return Diagnosis(judge(snapshot), snapshot)
