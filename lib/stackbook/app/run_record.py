"""The record of a run: the outcome of each chapter, saved as run.json and printed as a table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbook.config import chapters
from stackbook.config.profile import ChapterParameters, Profile
from stackbook.core.errors import EXIT_FAILED, StackbookError
from stackbook.core.redact import redact, scrub
from stackbook.core.version import __version__
from stackbook.lab.lab import Lab
from stackbook.lab.step import now

PASSED = ("passed", "unchanged")


@dataclass
class Outcome:
    """How one chapter went. `seconds` is wall time; `changed` counts the changes on the lab."""

    chapter: str
    outcome: str = "failed"
    seconds: float = 0.0
    changed: int = 0
    leaves: str = ""
    reason: str = ""
    notebook: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Run:
    """One run: what was requested, and its outcome."""

    profile: Profile
    chosen: list[chapters.Chapter]
    folder: Path
    outcomes: list[Outcome] = field(default_factory=list)
    started: str = field(default_factory=now)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every chapter passed or was proved unchanged."""
        return len(self.outcomes) == len(self.chosen) and all(o.outcome in PASSED for o in self.outcomes)


def save(current: Run) -> None:
    """Write run.json: what a reader needs to verify, compare or repeat this run."""
    artifacts = Lab(current.chosen[0], current.profile, ChapterParameters()).artifacts
    data = {
        "schema": 1,
        "started": current.started,
        "seconds": current.seconds,
        "passed": current.passed,
        "stackbook": __version__,
        "profile": current.profile.model_dump(mode="json"),
        "versions": artifacts.catalogue.versions,
        "components": artifacts.components(name for chapter in current.chosen for name in chapter.artifacts),
        "host": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "chapters": [asdict(o) for o in current.outcomes],
    }
    text = json.dumps(scrub(data), indent=1, ensure_ascii=False)
    temporary = current.folder / "run.json.new"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(current.folder / "run.json")


def keep_evidence(current: Run, say: Callable[[str], None]) -> None:
    """Collect the logs of the machines and of the cluster beside the run's record."""
    folder = current.folder / "logs"
    try:
        lab = Lab(chapters.find("00"), current.profile, ChapterParameters())
        lab.provider.collect_logs(folder)
        if (lab.state / "kubeconfig").exists():
            for name, args in (
                ("pods", ["get", "pods", "-A", "-o", "wide"]),
                ("events", ["get", "events", "-A"]),
                ("nodes", ["describe", "nodes"]),
            ):
                answer = lab.kube.kubectl(*args, check=False, timeout=20)
                (folder / f"{name}.txt").write_text(redact(answer.stdout + answer.stderr), encoding="utf-8")
    except (StackbookError, OSError) as error:
        say(f"  some evidence could not be collected: {error}")
    say(f"  evidence: {folder}")


def summary(current: Run) -> str:
    """The table at the end of a run: chapter, outcome, seconds, what it left behind."""
    rows = [("chapter", "outcome", "seconds", "changed", "left behind")]
    rows += [
        (
            o.chapter,
            o.outcome,
            f"{o.seconds:.1f}",
            str(o.changed),
            o.leaves if o.outcome in PASSED else o.reason.splitlines()[0][:90] if o.reason else "",
        )
        for o in current.outcomes
    ]
    done = {o.chapter for o in current.outcomes}
    rows += [(c.id, "not run", "", "", "") for c in current.chosen if c.id not in done]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for index, row in enumerate(rows):
        cells = [
            row[0].ljust(widths[0]),
            row[1].ljust(widths[1]),
            row[2].rjust(widths[2]),
            row[3].rjust(widths[3]),
            row[4],
        ]
        lines.append("  ".join(cells).rstrip())
        if index == 0:
            lines.append("  ".join("-" * w for w in widths))
    changed = sum(o.changed for o in current.outcomes)
    if current.passed and all(o.outcome == "unchanged" for o in current.outcomes):
        lines.append(f"Nothing was changed: everything was as it should be ({current.seconds:.1f} s).")
    else:
        lines.append(f"{changed} changes in {current.seconds:.1f} s.")
    return "\n".join(lines)


def exit_status(current: Run) -> int:
    """0 if everything passed, else 1."""
    return 0 if current.passed else EXIT_FAILED
