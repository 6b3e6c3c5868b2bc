"""Reading run.json: the result is a record with the right types, or an error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.lab.typed_commands import typed

# More than any run has: a record with more was not written by a run.
_MOST = 500
_MOST_EARLIER = 100


@dataclass(frozen=True)
class StepRecord:
    """How one step went; `seconds` is wall time, `commands` the failed ones with their output, `typed` the lines of all."""

    id: str
    title: str
    outcome: str
    seconds: float
    changed: int
    reason: str
    evidence: Mapping[str, Any]
    commands: tuple[Mapping[str, Any], ...]
    typed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChapterRecord:
    """How one chapter went; `notebook` is the name of a file beside run.json, or empty."""

    id: str
    outcome: str
    seconds: float
    changed: int
    leaves: str
    reason: str
    notebook: str
    steps: tuple[StepRecord, ...]

    @property
    def passed(self) -> bool:
        """Whether the chapter passed, or was proved unchanged."""
        return self.outcome in ("passed", "unchanged")


@dataclass(frozen=True)
class RunRecord:
    """One run; `name` is the name of its folder, `seconds` wall time."""

    name: str
    started: str
    seconds: float
    passed: bool
    version: str
    profile: Mapping[str, Any]
    versions: Mapping[str, Any]
    components: tuple[Mapping[str, Any], ...]
    host: Mapping[str, Any]
    chapters: tuple[ChapterRecord, ...]

    @property
    def when(self) -> str:
        """When it started, for a reader."""
        match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", self.started, re.ASCII)
        return "{}-{}-{} {}:{}:{} UTC".format(*match.groups()) if match else self.started or self.name


def read(folder: Path) -> RunRecord:
    """The record of the run in a folder.

    Raises:
        ValueError: there is no readable record.
    """
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} of {folder.name} cannot be read: {type(error).__name__}") from error
    return parse(data, name=folder.name)


def parse(data: Any, *, name: str = "") -> RunRecord:
    """The record in `data`; missing fields are empty, fields of a wrong type are left out.

    Raises:
        ValueError: `data` is not the record of a run.
    """
    if not isinstance(data, dict) or not isinstance(data.get("chapters"), list):
        raise ValueError(f"run.json of {name or 'a run'} is not the record of a run")
    return RunRecord(
        name=name,
        started=_text(data.get("started")),
        seconds=_number(data.get("seconds")),
        passed=data.get("passed") is True,
        version=_text(data.get("stackbook")),
        profile=_mapping(data.get("profile")),
        versions=_mapping(data.get("versions")),
        components=tuple(_list(data.get("components"))),
        host=_mapping(data.get("host")),
        chapters=tuple(_chapter(c) for c in _list(data["chapters"]) if _text(c.get("chapter"))),
    )


def earlier(folder: Path, most: int = _MOST_EARLIER) -> tuple[list[RunRecord], int]:
    """The records of the newest runs before this one, at most so many, newest first, and how many could not be read."""
    found, broken = [], 0
    older = (p for p in folder.parent.iterdir() if p.is_dir() and not p.is_symlink() and p.name < folder.name)
    for path in sorted(older, reverse=True)[:most]:
        if not (path / "run.json").exists():
            continue
        try:
            found.append(read(path))
        except ValueError:
            broken += 1
    return found, broken


def _chapter(data: Mapping[str, Any]) -> ChapterRecord:
    notebook = _text(data.get("notebook"))
    return ChapterRecord(
        id=_text(data.get("chapter")),
        outcome=_text(data.get("outcome")) or "failed",
        seconds=_number(data.get("seconds")),
        changed=int(_number(data.get("changed"))),
        leaves=_text(data.get("leaves")),
        reason=_text(data.get("reason")),
        notebook=notebook if re.fullmatch(r"[\w-][\w.-]*\.ipynb", notebook, re.ASCII) else "",
        steps=tuple(_step(s) for s in _list(data.get("steps"))),
    )


def _step(data: Mapping[str, Any]) -> StepRecord:
    return StepRecord(
        id=_text(data.get("step")),
        title=_text(data.get("title")),
        outcome=_text(data.get("outcome")) or "failed",
        seconds=_number(data.get("seconds")),
        changed=int(_number(data.get("changed"))),
        reason=_text(data.get("reason")),
        evidence=_mapping(data.get("evidence")),
        commands=tuple(c for c in _list(data.get("commands")) if _number(c.get("rc"))),
        typed=tuple(typed(_list(data.get("commands")))),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """A finite number; 0 if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        number = float(value)
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) and abs(number) < 1e12 else 0.0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value[:_MOST] if isinstance(item, dict)] if isinstance(value, list) else []
