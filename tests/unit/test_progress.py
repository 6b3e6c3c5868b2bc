"""What a learner has done: counted from the events of a lab, and shown for one lab or for a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import cli, progressing
from stackbook.config import chapters
from stackbook.core import paths
from stackbook.lab import learner


def events(*own: tuple[float, str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time": time, "event": event, "chapter": "06-traffic", **more} for time, event, more in own]


def one(*own: tuple[float, str, dict[str, Any]]) -> learner.Chapter:
    (row,) = learner.summary(events(*own), ["06-traffic"])
    return row


def test_a_run_is_no_reading_and_takes_no_ones_time() -> None:
    row = one((0, "bound", {"by": "batch"}), (60, "finished", {"by": "batch"}))
    assert (row.read, row.run, row.seconds) == (False, True, 0.0)
    row = one((0, "bound", {"by": "learner"}), (60, "finished", {"by": "learner"}))
    assert (row.read, row.run, row.seconds) == (True, True, 60.0)


def test_a_long_pause_is_no_work() -> None:
    row = one(
        (0, "bound", {}), (100, "begun", {"challenge": "06-a"}), (100 + learner.PAUSE + 1, "hint", {}), (5000, "x", {})
    )
    assert row.seconds == 100.0
    assert row.hints == 1 and row.tried == ["06-a"]


def test_a_challenge_counts_once_and_looking_up_after_solving_is_free() -> None:
    solved = {"challenge": "06-a", "solved": True}
    row = one((0, "verified", {"challenge": "06-a", "solved": False}), (1, "verified", solved), (2, "verified", solved),
              (3, "solution", {"challenge": "06-a"}), (4, "solution", {"challenge": "06-b"}))  # fmt: skip
    assert (row.solved, row.solutions) == (["06-a"], ["06-b"])


def test_events_are_kept_and_nonsense_in_the_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)
    learner.note(tmp_path, "bound", "06-traffic")
    with (tmp_path / learner.FILE).open("ab") as file:
        file.write(b'\xff{"half\n[1]\n{"time": "x", "chapter": "06-traffic"}\n\n')
    monkeypatch.setenv("STACKBOOK_RUN", "/runs/1")
    learner.note(tmp_path, "finished", "06-traffic")
    found = learner.events(tmp_path)
    assert [(event["event"], event["by"]) for event in found] == [("bound", "learner"), ("finished", "batch")]
    assert (tmp_path / learner.FILE).stat().st_mode & 0o777 == 0o600
    learner.note(tmp_path / "nowhere", "bound", "06-traffic")  # a chapter goes on without it
    assert learner.events(tmp_path / "nowhere") == []


@pytest.fixture
def labs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two labs on this host, and one of another folder."""
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)
    for name in ("ada", "<bo>"):
        learner.note(paths.state(name), "bound", "06-traffic")
    learner.note(paths.state("ada"), "verified", "06-traffic", challenge="06-b", solved=True)
    other = home / "other"
    (other / "ada").mkdir(parents=True)
    learner.note(other / "ada", "hint", "06-traffic", challenge="06-b")
    return other


def test_a_trainers_page_has_each_lab_and_each_challenge(
    labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "class.html"
    assert cli.main(["progress", "--all", "--from", str(labs), "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"3 labs: {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "Lab ada</caption>" in text and f"Lab ada ({labs})</caption>" in text
    assert "&lt;bo&gt;" in text and "<bo>" not in text
    assert '06-b Mutual TLS on one side only</th><td class="n">–</td><td class="n">1</td>' in text
    assert "http" not in text, "the page needs nothing from elsewhere"


def test_one_lab_on_a_terminal_and_as_json(labs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["progress"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "lab stackbook" and len(said) == len(chapters.ALL) + 3
    assert cli.main(["progress", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"ada", "<bo>"}
    traffic = next(row for row in found["ada"] if row["chapter"] == "06-traffic")
    assert traffic["read"] and traffic["solved"] == ["06-b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "/nowhere"], "--from works only with --all"),
        (["--all", "--from", "/nowhere"], "/nowhere is not a folder"),
        (["--all"], "nobody has opened a lab here yet"),
        (["--html", "/nowhere/page.html"], "/nowhere/page.html cannot be written: No such file or directory"),
    ],
)
def test_bad_words_get_a_line(words: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["progress", *words]) == 2
    assert f"stackbook: {said}" in capsys.readouterr().err


def test_durations_are_hours_and_minutes() -> None:
    assert [progressing.duration(seconds) for seconds in (0, 90, 3600, 7320)] == [
        "0 min",
        "2 min",
        "1 h 0 min",
        "2 h 2 min",
    ]
