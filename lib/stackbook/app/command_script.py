"""The commands of a chapter as its newest run recorded them: what a learner would type, and on which machine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbook.config.chapters import Chapter
from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.core.redact import redact

# The lab's own bookkeeping: commands that only check whether something has to be done.
_BOOKKEEPING = re.compile(
    r"^(test |stat |cat |systemctl (is-active|show|is-enabled) |ctr -n k8s\.io (images|content) |systemd-run |sh -c 'command -v)"
)
_WRITE = re.compile(r'^sh -c .*cat > "\$1\.new".*\' write (\S+) (\d+)$', re.DOTALL)
_CACHED = re.compile(r"(?<!\S)(?:/[^\s/]+)+/files/[0-9a-f]{16}/(\w[\w.-]*)")
_BY_API = "by the API"


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
    yield f"# Recorded by the run {folder.name}. Secrets are masked; the chapter has what a command reads from its standard input."
    for step in steps:
        lines = list(typed(step.get("commands") or [], everything=everything))
        if lines:
            yield ""
            yield f"# {step.get('step')}: {step.get('title')}"
            yield from lines


def typed(commands: Sequence[Mapping[str, Any]], *, everything: bool = False) -> Iterator[str]:
    """The recorded commands of a step as a learner would type them, after a comment if the machine changes."""
    host, seen = "", set()
    for command in commands:
        text = str(command.get("command", ""))
        where = str(command.get("host", ""))
        if not everything and (_BOOKKEEPING.match(text) or (where, text) in seen):
            continue
        seen.add((where, text))
        if where != host:
            host = where
            by_api = where.endswith(_BY_API)
            yield f"# on {where.partition(',')[0]}" + (
                ": stackbook used the API; this is the kubectl command for it" if by_api else ""
            )
        rc = command.get("rc")
        yield _typed(text) + (f"  # exit status {rc}" if rc else "")


def _typed(text: str) -> str:
    """A command as a learner would type it.

    >>> _typed("/root/.cache/stackbook/files/c457535b88cb5f15/istioctl install -y")
    'istioctl install -y'
    """
    if match := _WRITE.match(text):
        return f"install -D -m {match[2]} /dev/stdin {shlex.quote(match[1])}"
    return redact(_CACHED.sub(r"\1", text))


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
