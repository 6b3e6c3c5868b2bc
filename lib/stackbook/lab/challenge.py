"""What a challenge is: something of the lab that is broken, or a goal, and claims that say whether it is reached.

A challenge is a declaration. `stackbook.lab.attempt` begins one, verifies it, helps, and gives back what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from stackbook.lab.attempt import Attempt

HINTS = 3
"""Hints of each challenge: where to look, what is wrong, how it is mended."""


@dataclass(frozen=True)
class Claim:
    """Something that holds once the challenge is solved.

    Attributes:
        text: the claim, in words.
        prove: tries it out, and returns what was seen; raises StackbookError where the claim does not hold.
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
    """A command of a solution, as one would type it.

    Attributes:
        command: for bash; it may have several lines.
        on: the machine that it is typed on; empty for a terminal of this host, in the folder of the challenge.
        python: the text is a cell of a notebook that is bound to a lab, and not a command.
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
        situation: what is the case, in one or two sentences; it does not name the cause.
        goal: what has to hold in the end.
        hints: where to look, what is wrong, how it is mended.
        begin: breaks one thing, or prepares the goal; changes the lab by the methods of `Attempt` alone.
        claims: what holds in the end; each tries the real effect.
        solution: the commands of one solution.
        needs: checks that must pass before it can begin, as "05-istio/istio".
        machines: whether it works on machines of the lab, which an existing cluster has not.
        recovered: waits until the lab is as before, after everything was put back.
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
    """Raise CheckFailed with the problem, as it was seen, unless the condition holds.

    Raises:
        CheckFailed: it does not hold.
    """
    if not condition:
        raise CheckFailed(problem)
