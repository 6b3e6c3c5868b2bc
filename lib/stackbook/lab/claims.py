"""What a chapter claims of a step. It stands in a cell of its own, which is folded, so that the step's cell shows what is done.

The cell prints one line, which is the same on every run and unfolds to the claims. A step whose claims do not hold has failed.
"""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackbook.core.errors import CheckFailed
from stackbook.core.redact import redact
from stackbook.lab.step import Record, holds, judged


@dataclass
class Claims:
    """The claims of one step while they are checked; `held` are those that hold, in order."""

    step: str
    chapter: str
    record: Record
    held: list[str] = field(default_factory=list)

    def check(self, condition: bool, claim: str, *, seen: Any = "") -> None:
        """Prove a claim.

        Raises:
            CheckFailed: it does not hold; the message says what was seen instead.
        """
        holds(self.record, condition, claim, chapter=self.chapter, step=self.step, seen=seen)
        self.held.append(redact(claim))

    def proved(self, names: Iterable[str]) -> None:
        """Add claims that a function has just proved: it returns their names, and raises an error if one does not hold."""
        for name in names:
            self.check(True, name)


@contextlib.contextmanager
def claims(step: str, *, chapter: str, record: Record) -> Iterator[Claims]:
    """Check the claims of a step in a block.

    Args:
        step: the step's id.
        chapter: name of the chapter.
        record: the record for its events.

    Raises:
        CheckFailed: a claim does not hold, or the block claims nothing.
    """
    current = Claims(step=step, chapter=chapter, record=record)

    def tell(outcome: str, reason: str, seconds: float) -> None:
        number = len(current.held)
        record.append(
            "claims",
            chapter=chapter,
            step=step,
            outcome=outcome,
            seconds=round(seconds, 3),
            reason=reason,
            number=number,
        )
        _show(_line(step, outcome, reason, number), current.held)

    with judged(tell):
        yield current
        if not current.held:
            raise CheckFailed(f"{step}: no claim was checked")


def step_ends(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events of steps that ended. A step whose claims did not hold has their outcome and reason."""
    ends: dict[tuple[Any, Any], dict[str, Any]] = {}
    found = []
    for event in events:
        key = (event.get("chapter"), event.get("step"))
        if event["event"] == "step-end":
            ends[key] = dict(event)
            found.append(ends[key])
        elif event["event"] == "claims" and event.get("outcome") != "passed" and key in ends:
            ends[key] |= {"outcome": event.get("outcome"), "reason": event.get("reason", "")}
    return found


def _line(step: str, outcome: str, reason: str, number: int) -> str:
    """The line of a block.

    >>> _line("bookinfo", "passed", "", 2), _line("one", "passed", "", 1)
    ('✓ bookinfo: 2 claims hold', '✓ one: 1 claim holds')
    >>> _line("bookinfo", "failed", "bookinfo: this does not hold: six pods", 1)
    '✗ bookinfo: this does not hold: six pods'
    """
    if outcome == "passed":
        return f"✓ {step}: {number} claims hold" if number != 1 else f"✓ {step}: 1 claim holds"
    said = reason.split("\n")[0].removeprefix(f"{step}: ")
    return f"{'–' if outcome == 'interrupted' else '✗'} {step}: {said}"


def _show(line: str, held: list[str]) -> None:
    """Show the line, in a notebook so that it unfolds to the claims that hold."""
    text = "\n".join([line, *(f"  ✓ {claim}" for claim in held)])
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        print(text)
        return
    from IPython.display import display

    display({"text/plain": text, "text/html": block(line, held)}, raw=True)  # type: ignore[no-untyped-call]


def block(line: str, held: list[str]) -> str:
    """The line as HTML that unfolds to the claims that hold.

    >>> block("✓ a: 1 claim holds", ["x < y"])
    '<details class="claims"><summary>✓ a: 1 claim holds</summary><ul><li>✓ x &lt; y</li></ul></details>'
    """
    items = "".join(f"<li>✓ {html.escape(claim)}</li>" for claim in held)
    inner = f"<ul>{items}</ul>" if items else ""
    return f'<details class="claims"><summary>{html.escape(line)}</summary>{inner}</details>'
