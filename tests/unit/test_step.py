from __future__ import annotations

import json
from pathlib import Path

import pytest
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result
from stackbook.lab.step import Record, step


def events(path: Path) -> list[dict]:
    return Record(path).events()


def test_a_step_has_failed_unless_its_last_line_was_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path / "e.jsonl")
    with step("good", "works", chapter="x", record=record) as current:
        current.note(answer=42)
    with pytest.raises(RuntimeError), step("bad", "breaks", chapter="x", record=record):
        raise RuntimeError("boom")
    with pytest.raises(KeyboardInterrupt), step("cut", "is cut off", chapter="x", record=record):
        raise KeyboardInterrupt
    ends = [e for e in events(record.path) if e["event"] == "step-end"]
    assert [(e["step"], e["outcome"]) for e in ends] == [("good", "passed"), ("bad", "failed"), ("cut", "interrupted")]
    assert ends[0]["evidence"] == {"answer": 42}
    assert ends[1]["reason"] == "RuntimeError: boom"
    assert capsys.readouterr().out == "✓ good: works\n✗ bad: breaks\n- cut: is cut off\n".replace("- cut", "– cut")


def test_a_check_that_does_not_hold_says_what_was_seen(tmp_path: Path) -> None:
    record = Record(tmp_path / "e.jsonl")
    with (
        pytest.raises(CheckFailed, match="this does not hold: two pods; seen: 1"),
        step("s", "t", chapter="x", record=record) as s,
    ):
        s.check(False, "two pods", seen=1)
    assert [e["holds"] for e in events(record.path) if e["event"] == "check"] == [False]


def test_secrets_do_not_reach_the_record(tmp_path: Path) -> None:
    record = Record(tmp_path / "e.jsonl")
    token = "abcdef.0123456789abcdef"
    with step("join", f"with {token}", chapter="x", record=record, quiet=True) as s:
        s.observe(Result(("kubeadm", "join", "--token", token), 1, "", f"bad token {token}", 0.1, "n"))
        s.note(text=f"client-key-data: {'QUJD' * 20}")
    text = record.path.read_text()
    assert token not in text
    assert "QUJD" not in text
    assert "***" in text
    assert record.path.stat().st_mode & 0o077 == 0


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps({"event": "a"}) + "\n" + '{"event": "b', encoding="utf-8")
    assert [e["event"] for e in events(path)] == ["a"]
