"""A step of a chapter, and its record.

A step fails unless it reaches its last line. The cell shows one line, which is the same on every run and unfolds to the
commands of this run. Times, commands and evidence go into the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.redact import redact, scrub
from stackbook.core.results import Result
from stackbook.lab import step_line
from stackbook.lab.progress_line import Ticker, ticking

_MAX_TEXT = 4000
_MAX_INPUT = 100_000
_MAX_COMMANDS = 200


@dataclass(frozen=True)
class Record:
    """An append-only file of events, one JSON object per line, with secrets masked.

    Each event is one `write` to a file opened for appending, so a reader that follows the file sees whole lines.
    """

    path: Path

    def append(self, event: str, **values: Any) -> None:
        """Add an event with the time in seconds since the epoch."""
        data = {"event": event, "time": round(time.time(), 3), **scrub(values)}
        # A lone surrogate is not valid Unicode; it is written as a JSON escape.
        line = json.dumps(data, ensure_ascii=False).encode(errors="backslashreplace")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)

    def events(self) -> list[dict[str, Any]]:
        """Every complete event so far; skips an incomplete last line."""
        return _events(self._read(0))

    def since(self, place: int) -> tuple[list[dict[str, Any]], int]:
        """The events on whole lines from a place in the file, in bytes, and the place where the next call goes on.

        Who follows a run reads each event once; a long run's record has megabytes.
        """
        data = self._read(place)
        whole = data[: data.rfind(b"\n") + 1]
        return _events(whole), place + len(whole)

    def _read(self, place: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                return file.read()
        except FileNotFoundError:
            return b""


def _events(data: bytes) -> list[dict[str, Any]]:
    found = []
    # Not splitlines, which would also split at U+2028 and other characters that JSON does not escape.
    for line in data.decode(errors="replace").split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict) and "event" in value:
                found.append(value)
    return found


@dataclass
class Step:
    """One step while it runs."""

    id: str
    title: str
    chapter: str
    record: Record
    evidence: dict[str, Any] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    changed: int = 0
    ticker: Ticker | None = None

    def observe(self, result: Result) -> None:
        """Record a command and its result; hosts call this for each command while the step runs."""
        self.commands.append(
            {
                "host": result.host,
                "command": result.command[:_MAX_TEXT],
                "rc": result.rc,
                "seconds": round(result.seconds, 3),
                **({"folder": redact(result.folder)} if result.folder else {}),
                **({"background": True} if result.background else {}),
                **({"input": redact(result.given[:_MAX_INPUT])} if result.given else {}),
                **({"stderr": result.stderr[-_MAX_TEXT:]} if result.rc else {}),
            }
        )

    def note(self, **evidence: Any) -> None:
        """Add evidence: values for the record that are not shown on the page."""
        self.evidence.update(evidence)

    def progress(self, text: str) -> None:
        """Report progress; the terminal that follows the run shows it, and JupyterLab shows it below the running cell."""
        if self.ticker:
            self.ticker.text = text
        self.record.append("progress", chapter=self.chapter, step=self.id, text=text)

    def check(self, condition: bool, claim: str, *, seen: Any = "") -> None:
        """Prove what must hold before the step goes on; what a chapter claims of a finished step stands in `Lab.claims`.

        Raises:
            CheckFailed: it does not hold; the message says what was seen instead.
        """
        holds(self.record, condition, claim, chapter=self.chapter, step=self.id, seen=seen)


def holds(record: Record, condition: bool, claim: str, *, chapter: str, step: str, seen: Any = "") -> None:
    """Add to the record whether a claim about a step holds.

    Raises:
        CheckFailed: it does not hold; the message says what was seen instead.
    """
    record.append("check", chapter=chapter, step=step, claim=claim, holds=bool(condition))
    if not condition:
        raise CheckFailed(
            f"{step}: this does not hold: {claim}" + ("" if isinstance(seen, str) and not seen else f"; seen: {seen}")
        )


@contextlib.contextmanager
def step(id: str, title: str, *, chapter: str, record: Record, quiet: bool = False) -> Iterator[Step]:
    """Run a block as a step.

    Args:
        id: short stable name, unique in the chapter.
        title: what the step does, in a few words.
        chapter: name of the chapter.
        record: the record for its events.
        quiet: print nothing.
    """
    current = Step(id=id, title=title, chapter=chapter, record=record)

    def tell(outcome: str, reason: str, seconds: float) -> None:
        _ended(current, outcome, reason, seconds)
        if not quiet:
            mark = {"passed": "✓", "interrupted": "–"}.get(outcome, "✗")
            step_line.show(f"{mark} {id}: {title}", current.commands)

    record.append("step-start", chapter=chapter, step=id, title=title)
    with judged(tell), ticking(f"{id}: {title}") as current.ticker:
        yield current


@contextlib.contextmanager
def between(id: str, title: str, *, chapter: str, record: Record) -> Iterator[Step]:
    """Record the commands that a chapter runs between two steps, with no line on the page. Without a command, nothing is recorded."""
    current = Step(id=id, title=title, chapter=chapter, record=record)

    def tell(outcome: str, reason: str, seconds: float) -> None:
        if current.commands:
            _ended(current, outcome, reason, seconds, between=True)

    with judged(tell):
        yield current


@contextlib.contextmanager
def judged(tell: Callable[[str, str, float], None]) -> Iterator[None]:
    """Run a block, and tell how it ended: "passed", "failed" or "interrupted", the redacted reason, and its duration in seconds."""
    start = time.monotonic()
    outcome, reason = "failed", ""
    try:
        yield
        outcome = "passed"
    except KeyboardInterrupt:
        outcome, reason = "interrupted", "interrupted"
        raise
    except BaseException as error:
        reason = redact(str(error) if isinstance(error, StackbookError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        tell(outcome, reason[:_MAX_TEXT], time.monotonic() - start)


def _ended(current: Step, outcome: str, reason: str, seconds: float, *, between: bool = False) -> None:
    current.record.append(
        "step-end",
        chapter=current.chapter,
        step=current.id,
        title=current.title,
        outcome=outcome,
        seconds=round(seconds, 3),
        changed=current.changed,
        reason=reason,
        commands=current.commands[-_MAX_COMMANDS:],
        evidence=scrub(current.evidence),
        **({"between": True} if between else {}),
    )


def now() -> str:
    """The time in UTC, in ISO 8601, for file names and records."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
