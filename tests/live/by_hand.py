"""A patient learner: types what `stackbook commands` printed, on the machine that it names, and tries again if something is not ready."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stackbook.lab.lab import Lab

HOST = "this host"
_PLACE = re.compile(r"^# on (?P<place>[^:]+?)(?P<api>: stackbook used the API.*)?$")
_STEP = re.compile(r"^# (?P<step>[a-z0-9][a-z0-9-]*): ")
_STATUS = re.compile(r"  # exit status \d+$", re.MULTILINE)
PATIENCE = 90.0
"""Seconds for which a command is tried again: pods start, rules arrive."""


@dataclass(frozen=True)
class Typed:
    """A command of the script.

    Attributes:
        step: the id of its step.
        place: a machine's name, or `this host`.
        text: the command, with its here-document.
        fails: the run recorded that it failed.
    """

    step: str
    place: str
    text: str
    fails: bool


def commands(script: str) -> Iterator[Typed]:
    """The commands of a script, each whole: bash says when a quote or a here-document is still open."""
    step, place, gathered = "", HOST, ""
    for line in script.splitlines():
        if not gathered:
            if found := _PLACE.match(line):
                place = found["place"]
                continue
            if found := _STEP.match(line):
                step, place = found["step"], HOST
                continue
            if not line.strip() or line.startswith("# "):
                continue
        gathered += f"{line}\n"
        if _whole(gathered):
            yield Typed(step, place, _STATUS.sub("", gathered), bool(_STATUS.search(gathered.split("\n", 1)[0])))
            gathered = ""
    assert not gathered, f"the script ends in the middle of a command: {gathered[:300]}"


def _whole(text: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False, timeout=10)
    return done.returncode == 0 and not done.stderr


def type_all(
    lab: Lab,
    script: str,
    folder: Path,
    *,
    change: Callable[[Typed], str] = lambda one: one.text,
    patience: float = PATIENCE,
) -> list[str]:
    """Type a script on a lab; returns the commands that failed although the run had recorded that they work.

    Args:
        lab: the lab.
        script: what `stackbook commands CHAPTER` printed.
        folder: the folder on this host in which the learner works.
        change: what the learner types in place of a command, for example with secrets of his own; empty to leave it out.
        patience: seconds for which a command is tried again.
    """
    failed = []
    tools = {"KUBECONFIG": str(lab.kubeconfig), "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    for one in commands(script):
        if not (text := change(one)):
            continue
        until, said = time.monotonic() + (0 if one.fails else patience), ""
        while True:
            if one.place == HOST or one.place == "istioctl":
                done = subprocess.run(
                    ["bash", "-c", text], cwd=folder, env={**os.environ, **tools}, capture_output=True, text=True,
                    check=False, timeout=400,
                )  # fmt: skip
                status, said = done.returncode, done.stderr
            else:
                result = lab.machines[one.place].run(
                    ["bash", "-c", f"cd /root && {text}"], check=False, timeout=400, env={"HOME": "/root"}
                )
                status, said = result.rc, result.stderr
            if status == 0 or one.fails or time.monotonic() > until:
                break
            time.sleep(2)
        if status and not one.fails:
            failed.append(f"{one.step} on {one.place}: {text.strip()[:200]}: status {status}, {said.strip()[-200:]}")
    return failed
