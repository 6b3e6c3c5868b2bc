"""The line below a running cell: there while a step runs, gone afterwards, never in a batch run."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import pytest
from stackbook.core.waiting import until
from stackbook.lab.progress_line import Ticker, ticking
from stackbook.lab.step import Record, step


def seen(text: str) -> str:
    """What a page shows of a text with carriage returns: each part is written over the one before."""
    line = ""
    for part in text.split("\r"):
        line = part + line[len(part) :]
    return line.rstrip()


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/00-preflight.ipynb")
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)


def test_the_line_says_what_is_going_on_and_is_gone_at_the_end(somebody: None) -> None:
    page = io.StringIO()
    with ticking("install: Istio", stream=page, every=0.01, after=0) as ticker:
        ticker.text = "istiod starts"
        until(lambda: "istiod starts" in page.getvalue(), what="the line is there", timeout=5, every=0.01)
        assert re.fullmatch(r"… install: Istio: \d+ s \(istiod starts\)", seen(page.getvalue()))
        ticker.text = ""
        until(lambda: seen(page.getvalue()).endswith(" s"), what="a shorter line", timeout=5, every=0.01)
    assert seen(page.getvalue()) == ""


def test_a_short_step_has_no_line(somebody: None) -> None:
    page = io.StringIO()
    with ticking("quick", stream=page, after=30):
        pass
    assert page.getvalue() == ""


@pytest.mark.parametrize("environment", [{}, {"JPY_SESSION_NAME": "a.ipynb", "STACKBOOK_RUN": "/runs/1"}])
def test_a_batch_run_has_no_line(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    page = io.StringIO()
    with ticking("slow", stream=page, every=0.01, after=0) as ticker:
        ticker.text = "still shown to nobody"
    assert page.getvalue() == ""


def test_a_failed_step_takes_its_line_away(somebody: None) -> None:
    page = io.StringIO()
    with pytest.raises(ValueError, match="no"), ticking("t", stream=page, every=0.01, after=0):
        until(lambda: page.getvalue(), what="the line is there", timeout=5, every=0.01)
        raise ValueError("no")
    assert seen(page.getvalue()) == ""


def test_progress_of_a_step_goes_to_the_line_and_to_the_record(tmp_path: Path, somebody: None) -> None:
    record = Record(tmp_path / "events.jsonl")
    with step("wait", "something long", chapter="05-istio", record=record, quiet=True) as current:
        current.progress("half of it")
        assert current.ticker is not None and current.ticker.text == "half of it"
    assert [e["text"] for e in record.events() if e["event"] == "progress"] == ["half of it"]


def test_the_line_is_gone_before_a_picture_comes_and_does_not_come_back() -> None:
    """Behind a picture JupyterLab begins a new output: a line before it would stay on the page."""
    stream = io.StringIO()
    ticker = Ticker("slow", stream, every=0.005, after=0)
    thread = threading.Thread(target=ticker.run)
    thread.start()
    until(lambda: "… slow" in stream.getvalue(), what="the line is shown", timeout=10, every=0.005)
    message = {"content": "a picture"}
    assert ticker.before_display(message) is message
    before = stream.getvalue()
    assert before.endswith("\r")
    assert before.rsplit("\r", 2)[1].strip() == ""
    thread.join(10)
    ticker.clear()
    assert stream.getvalue() == before
