"""What the live tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stackbook import paths
from stackbook.chapter import Lab

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command of stackbook did."""

    status: int
    output: str


def stackbook(*args: str, timeout: float = 1500, env: dict[str, str] | None = None) -> Done:
    """Run `stackbook …` as a user would, from the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "stackbook", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout + done.stderr)


def keep_evidence(text: str) -> None:
    """Put the cause and the newest run's record where CI looks for them."""
    folder = os.environ.get("STACKBOOK_DIAGNOSTICS")
    if folder:
        (Path(folder) / "cause.txt").write_text(text[-6000:], encoding="utf-8")
        latest = paths.runs() / "latest"
        if latest.exists():
            shutil.copytree(latest.resolve(), Path(folder) / "run", dirs_exist_ok=True)


@dataclass(frozen=True)
class Built:
    """How the session came by its lab: `first` is the run that built it, None when it was there."""

    lab: Lab
    first: Done | None
