"""The command `challenge`: start one, verify it, get help, end it. A thin layer over `stackbook.lab.attempt`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.core import paths
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.names import did_you_mean

if TYPE_CHECKING:
    from stackbook.lab.attempt import Attempt

NAMES = ("challenge",)
FILE = "challenge.json"
ACTIONS = ("list", "start", "verify", "hint", "solution", "end")


def arguments(add: Callable[..., Any]) -> None:
    """The command's own arguments.

    Args:
        add: adds a command: its name, its help text, its function.
    """
    sub = add("challenge", "solve a challenge: repair a fault or reach a goal, and have it verified", command)
    sub.add_argument("action", choices=ACTIONS)
    sub.add_argument("id", nargs="?", default="", metavar="ID", help="for example 06-b; only start requires it")
    sub.add_argument("--seed", default="", metavar="S", help="start: what decides which fault is drawn")
    sub.add_argument("--apply", action="store_true", help="solution: run its commands instead of printing them")


def command(options: argparse.Namespace) -> int:
    """List challenges, or act on one; returns 1 if a claim does not hold."""
    from stackbook.app import session
    from stackbook.lab import attempt
    from stackbook.lessons import challenges

    action, id = options.action, options.id
    if options.seed and action != "start":
        raise InputError(f"challenge {action} takes no --seed", fix="stackbook challenge start ID --seed S")
    if options.apply and action != "solution":
        raise InputError(f"challenge {action} takes no --apply", fix="stackbook challenge solution --apply")
    if action == "list":
        for line in lines(options.profile, id):
            print(line)
        return 0
    if action == "start":
        if not id:
            raise InputError("challenge start needs the challenge's id", fix="stackbook challenge list")
        found = challenges.find(id)
        session.opened(found.chapter, options.profile).challenge(id, seed=options.seed)
        print(f"next: stackbook challenge verify, hint, solution or end{_profile(options)}")
        return 0
    current = _open(options)
    if action == "verify":
        return 0 if current.verify() else 1
    if action == "hint":
        current.hint()
    elif action == "solution":
        if options.apply:
            current.solve()
            print(f"✓ the commands of {current.challenge.id} were run")
        else:
            current.solution()
    else:
        attempt.end(current.lab, challenges.find)
    return 0


def _profile(options: argparse.Namespace) -> str:
    return "" if options.profile == "embedded" else f" (each with --profile {options.profile})"


def _open(options: argparse.Namespace) -> Attempt:
    """The challenge that is open on the lab.

    Raises:
        InputError: no challenge is open, or a different one is.
    """
    from stackbook.app import session
    from stackbook.lab.attempt import Attempt
    from stackbook.lessons import challenges

    if options.id:
        challenges.find(options.id)
    lab = session.opened("00-preflight", options.profile)
    current = Attempt.saved(lab, challenges.find)
    if current is None:
        raise InputError(
            "no challenge is open on this lab",
            fix="stackbook challenge start ID; `stackbook challenge list` lists the ids",
        )
    if options.id and options.id != current.challenge.id:
        raise InputError(
            f"the open challenge is {current.challenge.id}, not {options.id}",
            fix=f"stackbook challenge start {options.id}",
        )
    current.lab = session.opened(current.challenge.chapter, options.profile)
    return current


def lines(profile: str, chapter: str = "") -> Iterator[str]:
    """A line for each challenge: id, whether it is open or was solved, title.

    Args:
        profile: the name or path of the lab's profile.
        chapter: the number of a chapter, or the id of one challenge; empty for all.

    Raises:
        InputError: there is no challenge of that chapter or id.
    """
    from stackbook.app import session
    from stackbook.lab import learner
    from stackbook.lab.attempt import Attempt
    from stackbook.lessons import challenges

    known = challenges.every()
    chosen = [one for one in known if one.id == chapter or one.chapter.startswith(chapter or one.chapter)]
    if not chosen:
        raise InputError(f"there is no challenge {chapter!r}", fix=did_you_mean(chapter, [one.id for one in known]))
    lab = session.opened("00-preflight", profile)
    current = Attempt.saved(lab, challenges.find)
    rows = learner.summary(learner.events(lab.state), {one.chapter for one in known})
    solved = {id for row in rows for id in row.solved}
    for one in chosen:
        state = "open" if current and current.challenge.id == one.id else "solved" if one.id in solved else ""
        yield f"{one.id:5} {state:7} {one.title}"


def give_back(profile: str | Path, *, say: Callable[[str], None] = print) -> None:
    """End the open challenge before something that needs an intact lab; if that fails, say so and continue."""
    from stackbook.config.profile import Profile

    if not (paths.states() / Profile.load(profile).lab / FILE).exists():
        return
    from stackbook.app import session
    from stackbook.lab import attempt
    from stackbook.lessons import challenges

    try:
        attempt.end(session.opened("00-preflight", profile), challenges.find, say=say)
    except StackbookError as error:
        say(f"✗ a challenge was not given back: {error}")
