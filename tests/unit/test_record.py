"""The events of a run: whatever was written, by whomever, whole events come back and nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stackbook.core.results import Result
from stackbook.lab.step import Record, Step, step

QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
# With surrogates, line separators of Unicode and control characters.
TEXT = st.text(st.characters(), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@QUIET
@given(st.lists(st.tuples(TEXT, JSON), max_size=5))
def test_what_is_written_comes_back(tmp_path: Path, events: list[tuple[str, Any]]) -> None:
    record = Record(tmp_path / "e.jsonl")
    record.path.unlink(missing_ok=True)
    for name, value in events:
        record.append(name, value=value)
    assert [(e["event"], e["value"]) for e in record.events()] == [(n, json.loads(json.dumps(v))) for n, v in events]


@QUIET
@given(
    st.binary(max_size=200) | st.lists(JSON.map(json.dumps), max_size=5).map(lambda lines: "\n".join(lines).encode())
)
def test_any_bytes_are_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(data)
    assert all(isinstance(e, dict) and "event" in e for e in Record(path).events())


@QUIET
@given(st.integers(min_value=0, max_value=400))
def test_a_record_cut_anywhere_keeps_its_whole_events(tmp_path: Path, cut: int) -> None:
    record = Record(tmp_path / "whole.jsonl")
    if not record.path.exists():
        for number in range(5):
            record.append("progress", number=number, text="ü\u2028" * 3)
    data = record.path.read_bytes()[:cut]
    (tmp_path / "cut.jsonl").write_bytes(data)
    whole = data.count(b"\n")
    assert [e["number"] for e in Record(tmp_path / "cut.jsonl").events()][:whole] == list(range(whole))


@QUIET
@given(st.lists(st.integers(min_value=0, max_value=400), max_size=6))
def test_who_follows_a_growing_record_gets_each_event_once(tmp_path: Path, lengths: list[int]) -> None:
    whole = Record(tmp_path / "followed.jsonl")
    whole.path.unlink(missing_ok=True)
    for number in range(5):
        whole.append("progress", number=number, text="ü\u2028" * 3)
    data = whole.path.read_bytes()
    growing, place, seen = Record(tmp_path / "growing.jsonl"), 0, []
    growing.path.unlink(missing_ok=True)
    assert growing.since(0) == ([], 0)
    for length in [*sorted(lengths), len(data)]:
        growing.path.write_bytes(data[:length])
        events, place = growing.since(place)
        seen += [event["number"] for event in events]
        assert seen == list(range(data[:length].count(b"\n")))
    assert seen == list(range(5)) and growing.since(place) == ([], place)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"event": ' + "[" * 100_000, "1" * 10_000, '"event"', '{"x": 1}', "null"]
)
def test_a_line_that_is_no_event_is_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(f'{line}\n{{"event": "a"}}\n', encoding="utf-8")
    assert [e["event"] for e in Record(path).events()] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        'password="hunter22"',
        "password=hunter22\\",
        'a\\"password=hunter22\\"',
        "password: 12345678",
        'secret: "x y", z',
    ],
)
def test_masking_a_secret_never_costs_the_event(tmp_path: Path, text: str) -> None:
    record = Record(tmp_path / "e.jsonl")
    with step("s", text, chapter="c", record=record, quiet=True) as current:
        current.note(text=text, password=12345678, secret=True, nested={"token": "x" * 20})
        current.observe(Result(("sh", "-c", text), 1, "", text, 0.1, "m"))
        current.progress(text)
    events = record.events()
    assert [e["event"] for e in events] == ["step-start", "progress", "step-end"]
    assert events[2]["evidence"]["password"] == "***"
    assert events[2]["evidence"]["secret"] is True
    written = record.path.read_text(encoding="utf-8")
    assert "hunter22" not in written
    assert "12345678" not in written


def test_the_record_is_the_owners_alone_and_is_made_with_its_folder(tmp_path: Path) -> None:
    record = Record(tmp_path / "a" / "b" / "e.jsonl")
    assert record.events() == []
    record.append("x")
    assert record.path.stat().st_mode & 0o777 == 0o600


def test_only_failing_commands_keep_what_they_said(tmp_path: Path) -> None:
    current = Step("s", "t", "c", Record(tmp_path / "e.jsonl"))
    for rc in (0, 2):
        current.observe(Result(("ls",), rc, "out", "err" * 3000, 0.1, "m"))
    assert "stderr" not in current.commands[0]
    assert len(current.commands[1]["stderr"]) == 4000
