"""The line below a running cell: there while a step runs, gone afterwards, never in a batch run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from stackbook.core.waiting import pause, until
from stackbook.lab.progress_line import ticking
from stackbook.lab.step import Record, step


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/00-preflight.ipynb")
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)


def test_the_line_says_what_is_going_on_and_is_gone_at_the_end(somebody: None) -> None:
    page: list[str] = []
    with ticking("install: Istio", show=page.append, every=0.01, after=0) as ticker:
        ticker.text = "istiod starts"
        until(lambda: "istiod starts" in "".join(page), what="the line is there", timeout=5, every=0.01)
        assert re.fullmatch(r"… install: Istio: \d+ s \(istiod starts\)", page[-1])
        ticker.text = ""
        until(lambda: page[-1].endswith(" s"), what="a shorter line", timeout=5, every=0.01)
    assert page[-1] == ""


def test_a_short_step_has_no_line(somebody: None) -> None:
    page: list[str] = []
    with ticking("quick", show=page.append, after=30):
        pass
    assert page == []


@pytest.mark.parametrize("environment", [{}, {"JPY_SESSION_NAME": "a.ipynb", "STACKBOOK_RUN": "/runs/1"}])
def test_a_batch_run_has_no_line(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("STACKBOOK_RUN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    page: list[str] = []
    with ticking("slow", show=page.append, every=0.01, after=0) as ticker:
        ticker.text = "still shown to nobody"
    assert page == []


def test_a_failed_step_takes_its_line_away(somebody: None) -> None:
    page: list[str] = []
    with pytest.raises(ValueError, match="no"), ticking("t", show=page.append, every=0.01, after=0):
        until(lambda: page, what="the line is there", timeout=5, every=0.01)
        raise ValueError("no")
    assert page[-1] == ""


def test_progress_of_a_step_goes_to_the_line_and_to_the_record(tmp_path: Path, somebody: None) -> None:
    record = Record(tmp_path / "events.jsonl")
    with step("wait", "something long", chapter="05-istio", record=record, quiet=True) as current:
        current.progress("half of it")
        assert current.ticker is not None and current.ticker.text == "half of it"
    assert [e["text"] for e in record.events() if e["event"] == "progress"] == ["half of it"]


def test_nothing_is_shown_where_no_kernel_runs(somebody: None, capsys: pytest.CaptureFixture[str]) -> None:
    with ticking("slow", every=0.01, after=0) as ticker:
        pause(0.1)
    ticker.end()
    assert capsys.readouterr() == ("", "")


def test_on_the_page_it_is_one_display_and_empty_at_the_end(somebody: None) -> None:
    """A kernel's messages: one display, then only updates of it, the last one empty; what is printed is text alone."""
    code = """
import os
os.environ["JPY_SESSION_NAME"] = "a.ipynb"
os.environ.pop("STACKBOOK_RUN", None)
from stackbook.core.waiting import pause
from stackbook.lab.progress_line import ticking
with ticking("slow", every=0.05, after=0) as ticker:
    pause(0.3)
    print("in the middle")
    display({"text/plain": "a table"}, raw=True)
    pause(0.3)
"""
    messages: list[tuple[str, str]] = []

    def hook(message: dict[str, Any]) -> None:
        kind, content = message["header"]["msg_type"], message["content"]
        if kind in ("display_data", "update_display_data", "stream", "error"):
            messages.append((kind, content.get("text") or content.get("data", {}).get("text/plain", str(content))))

    with kernel() as client:
        client.execute_interactive(code, timeout=60, output_hook=hook)
    shown = [text for kind, text in messages if kind == "update_display_data"]
    assert len(shown) >= 3
    assert shown[-1] == ""
    assert all(text.startswith("… slow: ") for text in shown[:-1])
    rest = [(kind, text) for kind, text in messages if kind != "update_display_data"]
    assert rest[0][1].startswith("… slow: 0 s")
    assert rest[1:] == [("stream", "in the middle\n"), ("display_data", "a table")]


@contextlib.contextmanager
def kernel() -> Iterator[Any]:
    """A kernel of this environment, ended with the block."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield client
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
