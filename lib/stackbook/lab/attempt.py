"""An open challenge on a lab: begin it, verify it, get hints, solve it, and end it.

One challenge is open at a time. The lab's state (`challenge.json`) has its id, what it has drawn and what it has changed, so
another process can continue after a kernel or a terminal has ended.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stackbook.core import ownership
from stackbook.core.errors import CheckFailed, InputError, StackbookError
from stackbook.core.locks import Lock
from stackbook.core.waiting import pause
from stackbook.lab import journal, learner, typed
from stackbook.lab.challenge import HINTS, Challenge, Finding
from stackbook.lab.changes import FILE, Changes

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

Find = Callable[[str], Challenge]
PATIENCE = 5.0
"""How many seconds `verify` waits for the lab to settle after a change."""
_LOCK = 120.0


class Attempt(Changes):
    """An open challenge, as a learner uses it."""

    # what a learner does

    def verify(self, *, patience: float = PATIENCE) -> bool:
        """Try each claim, print what holds and what does not, and say whether all hold.

        Args:
            patience: for how many seconds claims that do not hold yet are tried again.

        Raises:
            InputError: the challenge is no longer open.
        """
        self._demand_open()
        found = self.findings(patience=patience)
        for one in found:
            print(f"{'✓' if one.holds else '✗'} {one.claim}{': ' if one.seen else ''}{one.seen}")
        held = sum(one.holds for one in found)
        learner.note(self.lab.state, "verified", self.challenge.chapter, challenge=self.challenge.id,
                     holds=held, of=len(found), solved=held == len(found))  # fmt: skip
        if held == len(found):
            print(f"{self.challenge.id} is solved; end() gives the lab back as it was")
        else:
            print(f"{held} of {len(found)} claims hold; hint() helps, {HINTS - self.hints} of {HINTS} hints are left")
        return held == len(found)

    def findings(self, *, patience: float = 0.0) -> list[Finding]:
        """For each claim, whether it holds and what was seen; see `verify`."""
        deadline = time.monotonic() + patience
        while True:
            found = [_tried(claim.text, claim.prove) for claim in self.challenge.claims(self)]
            if all(one.holds for one in found) or time.monotonic() >= deadline:
                return found
            pause(0.5)

    def hint(self) -> str:
        """Print and return the next of three hints: where to look, what is wrong, how to fix it."""
        self._demand_open()
        if self.hints < HINTS:
            self.hints += 1
            self.save()
            learner.note(self.lab.state, "hint", self.challenge.chapter, challenge=self.challenge.id, number=self.hints)
        text = self.challenge.hints[self.hints - 1]
        print(f"hint {self.hints} of {HINTS}: {text}")
        return text

    def solution(self) -> str:
        """Print and return the commands of one solution; nothing is changed."""
        self._demand_open()
        learner.note(self.lab.state, "solution", self.challenge.chapter, challenge=self.challenge.id)
        text = typed.as_text(self.challenge.solution(self), self.folder)
        print(text)
        return text

    def solve(self) -> None:
        """Run the commands of `solution`, each on its machine.

        Raises:
            CommandFailed: a command failed.
        """
        self._demand_open()
        typed.run(self.lab, self.challenge.solution(self), self.folder)

    def end(self) -> None:
        """Undo what the challenge has changed; see `end`."""
        if _saved(self.lab).get("id") == self.challenge.id:
            end(self.lab, lambda _: self.challenge)

    giveup = end

    # its record

    @classmethod
    def saved(cls, lab: Lab, find: Find) -> Attempt | None:
        """The open challenge of the lab; None if there is none."""
        data = _saved(lab)
        if not data:
            return None
        attempt = cls(lab, find(data["id"]), data["seed"])
        attempt.drawn, attempt.entries, attempt.hints = data["drawn"], data["entries"], data["hints"]
        attempt.begun = data["begun"]
        return attempt

    def _demand_open(self) -> None:
        if _saved(self.lab).get("id") != self.challenge.id:
            raise InputError(
                f"the challenge {self.challenge.id} is not open on this lab",
                fix=f"stackbook challenge start {self.challenge.id}",
            )


def _tried(text: str, prove: Callable[[], str]) -> Finding:
    try:
        return Finding(text, True, prove())
    except StackbookError as error:
        return Finding(text, False, " ".join(error.message.split())[:300] or type(error).__name__)


def open_on(lab: Lab) -> str:
    """The id of the open challenge of a lab; empty if there is none."""
    return str(_saved(lab).get("id", ""))


def _saved(lab: Lab) -> dict[str, Any]:
    try:
        found = json.loads((lab.state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "id" in found else {}


def begin(lab: Lab, find: Find, id: str, seed: str = "", *, say: Callable[[str], None] = print) -> Attempt:
    """Begin a challenge, or continue it if it is open; if another one is open, it is ended first.

    Args:
        lab: the lab.
        find: returns the challenge with an id.
        id: the challenge's id.
        seed: decides what is drawn, together with the lab's name; if empty, the lab's instance decides.
        say: takes the situation and the goal, line by line.

    Raises:
        InputError: there is no such challenge, or a chapter that it needs has not run; nothing was changed.
    """
    challenge = find(id)
    whole = f"{lab.profile.lab}:{seed or lab.instance()}"
    with _alone(lab):
        current = Attempt.saved(lab, find)
        if current and current.challenge.id == challenge.id and current.seed == whole:
            say(f"{challenge.id} is open already: {challenge.title}")
            say(f"goal: {challenge.goal}")
            return current
        _demand_needs(lab, challenge)
        if current:
            _give_back(current, say)
        attempt = Attempt(lab, challenge, whole)
        attempt.save()
        shutil.rmtree(attempt.folder, ignore_errors=True)
        try:
            challenge.begin(attempt)
            if owner := ownership.user():  # the user who called sudo edits these files
                ownership.give([attempt.folder], owner)
        except BaseException:
            _give_back(attempt, say)
            raise
    learner.note(lab.state, "begun", challenge.chapter, challenge=challenge.id)
    for line in (f"{challenge.id}: {challenge.title}", challenge.situation, f"goal: {challenge.goal}"):
        say(line)
    if attempt.folder.is_dir():
        say(f"files: {attempt.folder}")
    return attempt


def _demand_needs(lab: Lab, challenge: Challenge) -> None:
    """Refuse a challenge that does not work on this lab.

    Raises:
        InputError: the lab has no machines, or a chapter that the challenge needs has not run.
    """
    if challenge.machines and lab.profile.target == "cluster":
        raise InputError(f"{challenge.id} works on machines, and this lab is an existing cluster", fix="choose another")
    for need in challenge.needs:
        chapter, _, name = need.partition("/")
        for check in lab.checks_of(chapter):
            if name and getattr(check, "id", name) != name:
                continue
            try:
                check.prove(lab)
            except StackbookError as error:
                reason = error.message.splitlines()[0]
                raise InputError(
                    f"{challenge.id} needs chapter {chapter[:2]}: {check.claim}: {reason}",
                    fix=f"stackbook run --only {chapter[:2]}",
                ) from error


def end(lab: Lab, find: Find, *, say: Callable[[str], None] = print) -> bool:
    """Undo what the open challenge has changed; returns False if none is open.

    Raises:
        CheckFailed: something could not be undone; it stays in the record, and the next `end` tries it again.
    """
    with _alone(lab):
        current = Attempt.saved(lab, find)
        if current is None:
            return False
        _give_back(current, say)
        return True


def _give_back(attempt: Attempt, say: Callable[[str], None]) -> None:
    lab, challenge = attempt.lab, attempt.challenge
    left = journal.put_back(lab, attempt.entries)
    if left:
        attempt.entries = left
        attempt.save()
        raise CheckFailed(
            f"{challenge.id} is not given back: {left[0]['kind']}: {left[0]['why']}", fix="stackbook challenge end"
        )
    (lab.state / FILE).unlink(missing_ok=True)
    shutil.rmtree(attempt.folder, ignore_errors=True)
    if challenge.recovered and attempt.entries:
        challenge.recovered(attempt)
    learner.note(lab.state, "ended", challenge.chapter, challenge=challenge.id)
    say(f"✓ {challenge.id} is given back")


@contextlib.contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    with Lock(lab.state / "challenge.lock").held(what="another command of a challenge to end", timeout=_LOCK):
        yield
