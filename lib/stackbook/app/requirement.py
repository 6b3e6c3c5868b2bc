"""One requirement of a host: what was found, and the fix if it is not met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """One requirement: `level` is must, should or may; `fix` is empty if the requirement is met."""

    name: str
    level: str
    met: bool
    found: str
    fix: str = ""
    why: str = ""
