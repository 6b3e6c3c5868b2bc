"""The commands of a chapter as its newest run recorded them: what a learner would type, and on which machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stackbook.config.chapters import Chapter
from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.lab.typed_commands import typed

_ALL = 1_000_000  # lines: files are printed whole


def script(chapter: Chapter, *, everything: bool = False) -> Iterator[str]:
    """The lines: a heading for each step, a comment for each machine, then its commands, each once.

    Args:
        chapter: the chapter.
        everything: also repeated commands, and those that only check whether something has to be done.

    Raises:
        InputError: no run on this host has executed the chapter.
    """
    folder, steps = _recorded(chapter)
    yield f"# {chapter.id}: {chapter.title}"
    yield f"# Recorded by the run {folder.name}. Secrets are masked as ***: replace them with your own."
    for step in steps:
        lines = list(typed(step.get("commands") or [], everything=everything, longest=_ALL))
        if lines:
            yield ""
            yield f"# {step.get('step')}: {step.get('title')}"
            yield from lines


def _recorded(chapter: Chapter) -> tuple[Path, list[Mapping[str, Any]]]:
    """The newest run that executed the chapter, and its steps."""
    runs = paths.runs()
    folders = [p for p in runs.iterdir() if p.is_dir() and not p.is_symlink()] if runs.is_dir() else []
    for folder in sorted(folders, reverse=True):
        try:
            data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            mine = [c for c in data["chapters"] if c.get("chapter") == chapter.id and c.get("steps")]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if mine:
            return folder, list(mine[0]["steps"])
    raise InputError(
        f"no run in {runs} has executed {chapter.id}",
        fix=f"stackbook run --again --only {chapter.id[:2]}, or set STACKBOOK_RUNS",
    )
