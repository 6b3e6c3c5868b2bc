"""A block of claims: what it shows, what it records, and that a claim that does not hold fails its step."""

from __future__ import annotations

import contextlib
from pathlib import Path

import IPython
import pandas as pd
import pytest
from stackbook.app import supervision
from stackbook.core.errors import CheckFailed
from stackbook.lab.claims import block, claims, step_ends
from stackbook.lab.step import Record, step

TOKEN = "abcdef.0123456789abcdef"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "events.jsonl")


def test_claims_that_hold_are_one_line_and_a_list(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with claims("bookinfo", chapter="05-istio", record=record) as found:
        found.check(True, "all six pods are 2/2", seen=["not shown"])
        found.proved(["v1: agrees", "v3: agrees"])
    assert capsys.readouterr().out.splitlines() == [
        "✓ bookinfo: 3 claims hold",
        "  ✓ all six pods are 2/2",
        "  ✓ v1: agrees",
        "  ✓ v3: agrees",
    ]
    *checked, end = record.events()
    assert [(e["event"], e["chapter"], e["step"], e["claim"], e["holds"]) for e in checked] == [
        ("check", "05-istio", "bookinfo", claim, True) for claim in ("all six pods are 2/2", "v1: agrees", "v3: agrees")
    ]
    wanted = {
        "event": "claims",
        "chapter": "05-istio",
        "step": "bookinfo",
        "outcome": "passed",
        "reason": "",
        "number": 3,
    }
    assert wanted.items() <= end.items()


def test_one_claim_is_not_called_claims(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with claims("one", chapter="x", record=record) as found:
        found.check(True, "it holds")
    assert capsys.readouterr().out.startswith("✓ one: 1 claim holds\n")


def test_a_claim_that_does_not_hold_says_what_was_seen(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckFailed) as failed, claims("pods", chapter="x", record=record) as found:
        found.check(True, "there are pods")
        found.check(False, "two pods", seen=1)
        found.check(True, "never asked")
    assert str(failed.value) == "pods: this does not hold: two pods; seen: 1"
    assert capsys.readouterr().out == "✗ pods: this does not hold: two pods; seen: 1\n  ✓ there are pods\n"
    assert [e["holds"] for e in record.events() if e["event"] == "check"] == [True, False]
    end = record.events()[-1]
    assert (end["outcome"], end["reason"], end["number"]) == ("failed", str(failed.value), 1)


def test_a_table_may_be_what_was_seen(record: Record) -> None:
    with (
        pytest.raises(CheckFailed, match=r"three rows; seen:\s+a\s+0\s+1"),
        claims("one", chapter="x", record=record) as found,
    ):
        found.check(False, "three rows", seen=pd.DataFrame({"a": [1]}))


def test_the_message_is_that_of_a_steps_own_check(record: Record) -> None:
    said = []
    for scope in (step("s", "t", chapter="x", record=record, quiet=True), claims("s", chapter="x", record=record)):
        with pytest.raises(CheckFailed) as failed, scope as current:
            current.check(False, "two pods", seen=[1])
        said.append(str(failed.value))
    assert said[0] == said[1]


def test_a_block_without_a_claim_fails(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(CheckFailed, match=r"^empty: no claim was checked$"),
        claims("empty", chapter="x", record=record),
    ):
        pass
    assert capsys.readouterr().out == "✗ empty: no claim was checked\n"
    with pytest.raises(CheckFailed, match="no claim was checked"), claims("empty", chapter="x", record=record) as found:
        found.proved([])


@pytest.mark.parametrize(
    ("error", "outcome", "line"),
    [
        (KeyError("v3"), "failed", "✗ s: KeyError: 'v3'"),
        (KeyboardInterrupt(), "interrupted", "– s: interrupted"),
        (CheckFailed("v1: differs", fix="look"), "failed", "✗ s: v1: differs — look"),
    ],
)
def test_every_other_error_fails_it_too(
    record: Record, capsys: pytest.CaptureFixture[str], error: BaseException, outcome: str, line: str
) -> None:
    with pytest.raises(type(error)), claims("s", chapter="x", record=record):
        raise error
    assert record.events()[-1]["outcome"] == outcome
    assert capsys.readouterr().out == f"{line}\n"


def test_a_step_whose_claim_does_not_hold_has_failed(record: Record) -> None:
    for id in ("one", "two"):
        with step(id, "t", chapter="x", record=record, quiet=True) as current:
            current.note(answer=42)
        with contextlib.suppress(CheckFailed), claims(id, chapter="x", record=record) as found:
            found.check(id == "one", "six pods")
    ends = step_ends(record.events())
    assert [(e["step"], e["outcome"], e["reason"]) for e in ends] == [
        ("one", "passed", ""),
        ("two", "failed", "two: this does not hold: six pods"),
    ]
    assert all(e["evidence"] == {"answer": 42} for e in ends)
    assert [e["outcome"] for e in record.events() if e["event"] == "step-end"] == ["passed", "passed"]


def test_claims_count_for_the_newest_run_of_their_step_alone(record: Record) -> None:
    for _ in range(2):
        with step("s", "t", chapter="x", record=record, quiet=True):
            pass
    with pytest.raises(CheckFailed), claims("s", chapter="x", record=record):
        pass
    with step("s", "t", chapter="y", record=record, quiet=True):
        pass
    assert [e["outcome"] for e in step_ends(record.events())] == ["passed", "failed", "passed"]


def test_the_terminal_shows_only_claims_that_do_not_hold() -> None:
    event = {"event": "claims", "step": "s", "seconds": 0.04}
    assert supervision._line({**event, "outcome": "passed"}) == ""
    assert supervision._line({**event, "outcome": "failed"}) == "  ✗ s (0.0 s)"
    assert supervision._line({**event, "outcome": "interrupted"}) == "  – s (0.0 s)"


def test_secrets_are_shown_nowhere(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckFailed) as failed, claims("s", chapter="x", record=record) as found:
        found.check(True, f"it was given {TOKEN}")
        found.check(False, f"it is {TOKEN}", seen=TOKEN)
    shown = capsys.readouterr().out + record.path.read_text() + str(failed.value)
    assert TOKEN not in shown and "***" in shown


def test_in_a_notebook_the_line_unfolds_to_the_claims(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    with claims("s", chapter="x", record=record) as found:
        found.check(True, "1 < 2")
    assert shown == [
        {
            "text/plain": "✓ s: 1 claim holds\n  ✓ 1 < 2",
            "text/html": '<details class="claims"><summary>✓ s: 1 claim holds</summary><ul><li>✓ 1 &lt; 2</li></ul></details>',
        }
    ]
    assert block("✗ s: no", []) == '<details class="claims"><summary>✗ s: no</summary></details>'
