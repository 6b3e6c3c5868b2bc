"""A claim about the lab that can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


@dataclass(frozen=True)
class Check:
    """A claim about the lab, and its proof."""

    id: str
    claim: str
    prove: Callable[[Lab], str]


def require(condition: bool, problem: str, *, fix: str = "") -> None:
    """Raise CheckFailed with `problem` unless the condition holds."""
    if not condition:
        raise CheckFailed(problem, fix=fix)
