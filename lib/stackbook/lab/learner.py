"""A learner's progress: a file of events in the lab's state. Nothing is sent anywhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "progress.jsonl"
PAUSE = 900.0
"""Seconds; a longer gap between two events does not count as time spent on the chapter."""


def note(state: Path, event: str, chapter: str, **values: Any) -> None:
    """Add an event; if the state cannot be written, the chapter continues without it.

    Args:
        state: the folder of the lab's state.
        event: "bound", "finished", "begun", "verified", "hint", "solution" or "ended".
        chapter: the chapter's id.
        values: further values of the event.
    """
    by = "batch" if os.environ.get("STACKBOOK_RUN") else "learner"
    data = {"time": round(time.time(), 1), "event": event, "chapter": chapter, "by": by, **values}
    try:
        descriptor = os.open(state / FILE, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, json.dumps(data).encode() + b"\n")
    finally:
        os.close(descriptor)


def events(state: Path) -> list[dict[str, Any]]:
    """The events of a lab, in order; skips lines that cannot be read."""
    try:
        lines = (state / FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("time"), int | float) and "chapter" in value:
            found.append(value)
    return found


@dataclass
class Chapter:
    """What a learner has done in a chapter.

    Attributes:
        chapter: its id.
        read: whether a learner, and not a run, has bound a kernel to it.
        run: whether a learner or a run has reached its end.
        solved: the challenges that were solved.
        tried: the challenges that were begun.
        hints: how many hints the learner asked for.
        solutions: the challenges whose solution the learner read before solving them.
        seconds: how long a learner worked on it, without pauses of more than a quarter of an hour.
    """

    chapter: str
    read: bool = False
    run: bool = False
    solved: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    hints: int = 0
    solutions: list[str] = field(default_factory=list)
    seconds: float = 0.0


def summary(found: Iterable[Mapping[str, Any]], chapters: Iterable[str]) -> list[Chapter]:
    """Summarize the events of each chapter, in the order of the chapters.

    >>> one = {"time": 1, "event": "bound", "chapter": "06-traffic", "by": "learner"}
    >>> two = {"time": 61, "event": "verified", "chapter": "06-traffic", "challenge": "06-a", "solved": True}
    >>> [(row.read, row.solved, row.seconds) for row in summary([one, two], ["06-traffic"])]
    [(True, ['06-a'], 60.0)]
    """
    rows = {name: Chapter(name) for name in chapters}
    last: dict[str, float] = {}
    for event in found:
        row = rows.get(str(event["chapter"]))
        if row is None:
            continue
        _count(row, event)
        if event.get("by", "learner") == "learner":
            gap = float(event["time"]) - last.get(row.chapter, float(event["time"]))
            row.seconds += gap if 0 <= gap <= PAUSE else 0.0
            last[row.chapter] = float(event["time"])
    return list(rows.values())


def _count(row: Chapter, event: Mapping[str, Any]) -> None:
    kind, challenge = event.get("event"), str(event.get("challenge", ""))
    if kind == "bound":
        row.read = row.read or event.get("by", "learner") == "learner"
    elif kind == "finished":
        row.run = True
    elif kind == "hint":
        row.hints += 1
    elif kind == "begun" and challenge not in row.tried:
        row.tried.append(challenge)
    elif kind == "solution" and challenge not in (*row.solutions, *row.solved):
        row.solutions.append(challenge)
    elif kind == "verified" and event.get("solved") and challenge not in row.solved:
        row.solved.append(challenge)
