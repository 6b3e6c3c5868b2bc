"""Declarations of challenges. A challenge breaks something of the lab or sets a goal; its claims say when it is solved.

`stackbook.lab.attempt` begins a challenge, verifies it, gives hints, and undoes what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.lab.attempt import Attempt

HINTS = 3
"""How many hints each challenge has: where to look, what is wrong, how to fix it."""


@dataclass(frozen=True)
class Claim:
    """A statement that is true once the challenge is solved.

    Attributes:
        text: the claim, in words.
        prove: tests it on the lab and returns what was seen; raises StackbookError if the claim does not hold.
    """

    text: str
    prove: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """A claim, whether it holds, and what was seen."""

    claim: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Typed:
    """A command of a solution, as a learner would type it.

    Attributes:
        command: for bash; it may have several lines.
        on: the machine on which it is typed; empty for a terminal of this host, in the folder of the challenge.
        python: whether `command` is Python code for a cell of a notebook that is bound to the lab.
    """

    command: str
    on: str = ""
    python: bool = False


@dataclass(frozen=True)
class Challenge:
    """A challenge of a chapter.

    Attributes:
        id: the chapter's number and a letter, like "06-b".
        chapter: the chapter's id, like "06-traffic".
        title: a few words.
        situation: what a learner finds, in one or two sentences, without the cause.
        goal: what must be true in the end.
        hints: where to look, what is wrong, how to fix it.
        begin: breaks one thing, or prepares the goal; changes the lab only with the methods of `Attempt`.
        claims: what is true in the end; each tests the real effect.
        solution: the commands of one solution.
        needs: checks that must pass before it can begin, like "05-istio/istio".
        machines: whether it needs machines; the target `cluster` has none.
        recovered: waits until the lab is as before, after everything was undone.
    """

    id: str
    chapter: str
    title: str
    situation: str
    goal: str
    hints: tuple[str, str, str]
    begin: Callable[[Attempt], None]
    claims: Callable[[Attempt], Sequence[Claim]]
    solution: Callable[[Attempt], Sequence[Typed]]
    needs: tuple[str, ...] = ()
    machines: bool = False
    recovered: Callable[[Attempt], None] | None = None


def require(condition: object, problem: str) -> None:
    """Check a condition.

    Raises:
        CheckFailed: it is false; the message is `problem`, which says what was seen.
    """
    if not condition:
        raise CheckFailed(problem)
