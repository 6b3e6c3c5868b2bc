"""What goes along with a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from stackbook.app import supervision
from stackbook.app.run_display import Lines
from stackbook.lab.step import Record


@pytest.mark.parametrize(("log", "trims"), [("go:apps: 7 built in 31 s\n", 1), ("bundle:apps: 0.1.0, 90 MB, 1 s\n", 0)])
def test_gos_caches_are_bounded_only_after_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, trims: int
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(supervision.subprocess, "run", lambda command, **_: ran.append(command))
    (tmp_path / "prefetch.log").write_text(log)
    supervision._trim_after_builds(tmp_path / "prefetch.log")
    assert len(ran) == trims
    assert all("--trim" in command for command in ran)


def test_a_chapters_steps_are_said_before_the_next_chapter(tmp_path: Path) -> None:
    said: list[str] = []
    record = Record(tmp_path / "events.jsonl")
    with supervision.following(tmp_path, Lines(said.append, every=0)) as tell:
        for number in range(30):
            tell(f"chapter {number}")
            record.append("progress", text=f"step of {number}")
    assert said == [line for n in range(30) for line in (f"chapter {n}", f"    step of {n}")]


def test_steps_and_claims_that_fail_have_a_line_and_what_runs_between_steps_has_none(tmp_path: Path) -> None:
    said: list[str] = []
    record = Record(tmp_path / "events.jsonl")
    end = {"chapter": "06-traffic", "outcome": "passed", "seconds": 1.0}
    with supervision.following(tmp_path, Lines(said.append, every=0)):
        record.append("step-end", step="enter", between=True, **end)
        record.append("step-start", chapter="06-traffic", step="one", title="a step")
        record.append("step-end", step="one", **end)
        record.append("claims", step="one", **end)
        record.append("claims", step="one", **{**end, "outcome": "failed"})
        record.append("step-end", step="leave", between=True, **{**end, "outcome": "failed"})
    assert said == ["  • one: a step", "  ✓ one (1.0 s)", "  ✗ one (1.0 s)", "  ✗ leave (1.0 s)"]
