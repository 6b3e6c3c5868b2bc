"""Rebuilding a class for the next day: papermill builds each lab again after a reset, and one report covers them all."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stackbook.app.classroom import labs
from stackbook.app.classroom.labs import Seat
from stackbook.config.chapters import Chapter
from stackbook.lab.step import now


@dataclass(frozen=True)
class Outcome:
    """The outcome of one lab.

    Attributes:
        lab: its name.
        reset: the exit status of its reset.
        run: the exit status of its run; None if the reset failed.
        seconds: wall time of both.
        report: the run's own report.
        said: the last lines of the output if something failed.
    """

    lab: str
    reset: int
    run: int | None
    seconds: float
    report: str
    said: str

    @property
    def good(self) -> bool:
        """Whether the lab was reset and built again."""
        return self.reset == 0 and self.run == 0


def run(seats: Sequence[Seat], last: Chapter) -> int:
    """Reset and build each lab, and write the report; returns 1 if a lab failed."""
    outcomes = []
    for seat in seats:
        outcomes.append(again(seat, last))
        mark = "✓" if outcomes[-1].good else "✗"
        print(f"{mark} {seat.name} ({outcomes[-1].seconds:.0f} s)", flush=True)
    page = write(outcomes, labs.folder() / "nightly")
    print(f"report: {page}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def again(seat: Seat, last: Chapter) -> Outcome:
    """Reset one lab, then run chapters 00 to `last`; the record is kept in the class's folder."""
    began = time.monotonic()
    runs = labs.folder() / "nightly" / "runs" / seat.name
    status, said = _stackbook(runs, "reset", "--profile", str(seat.file))
    done: int | None = None
    if status == 0:
        done, said = _stackbook(runs, "run", "--profile", str(seat.file), "--to", last.number)
    report = (runs / "latest").resolve() / "report.html"
    return Outcome(
        seat.name, status, done, round(time.monotonic() - began, 1), str(report) if report.is_file() else "",
        "" if status == 0 and done == 0 else said[-2000:],
    )  # fmt: skip


def _stackbook(runs: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "stackbook", *words]
    env = {**os.environ, "STACKBOOK_RUNS": str(runs)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    return done.returncode, done.stdout + done.stderr


def write(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """The report of a night, as a page and as JSON; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    name = now()
    (folder / f"{name}.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n", encoding="utf-8")
    rows = "".join(
        f"<tr><td>{html.escape(o.lab)}</td><td>{'✓ rebuilt' if o.good else '✗ failed'}</td><td>{o.seconds:.0f} s</td>"
        f"<td>{f'<a href={json.dumps(Path(o.report).as_uri())}>report</a>' if o.report else '–'}</td>"
        f"<td><pre>{html.escape(o.said)}</pre></td></tr>"
        for o in outcomes
    )
    good = sum(o.good for o in outcomes)
    page = folder / f"{name}.html"
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Class, {name}</title><style>body{{font:16px sans-serif;margin:2em}}td,th{{padding:.3em 1em;text-align:left;"
        "vertical-align:top}pre{white-space:pre-wrap}</style>"
        f"<h1>Class, {name}: {good} of {len(outcomes)} labs were rebuilt</h1><table><thead><tr><th>lab</th><th>outcome</th>"
        f"<th>time</th><th>report</th><th>output</th></tr></thead><tbody>{rows}</tbody></table></html>\n",
        encoding="utf-8",
    )
    return page
