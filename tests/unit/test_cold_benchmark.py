"""What the cold benchmark makes of a run's record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stackbook.app.cold_benchmark import BUDGET, block, busy_seconds, marks, publish, waits
from stackbook.core import paths
from stackbook.core.errors import CheckFailed

EVENTS = [
    {"event": "step-end", "chapter": chapter, "time": 1000.0 + seconds}
    for chapter, seconds in (
        ("01-machines", 80),
        ("01-machines", 95.4),
        ("02-kubeadm", 500),
        ("05-istio", 840),
        ("06-traffic", 900),
    )
]
RECORD = {
    "passed": True,
    "chapters": [
        {
            "chapter": "02-kubeadm",
            "seconds": 400.0,
            "steps": [{"evidence": {"waited_for_components": {"kubelet": 380.0}}}, {}],
        }
    ],
}


def test_marks_are_the_ends_of_chapters() -> None:
    assert marks(RECORD, EVENTS, 1000.0, 1500.4) == {
        "machines run": 95, "kubeadm done": 500, "chapter 05 done": 840, "everything": 1500
    }  # fmt: skip
    assert set(BUDGET) <= set(marks(RECORD, EVENTS, 1000.0, 1))


def test_a_run_that_failed_gives_no_figure() -> None:
    with pytest.raises(CheckFailed):
        marks({**RECORD, "passed": False}, EVENTS, 1000.0, 1500.0)


def test_what_was_waited_for() -> None:
    assert waits(RECORD) == {"02-kubeadm: kubelet": 380.0}


def test_the_readme_gets_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "checkout", lambda: tmp_path)
    (tmp_path / "README.md").write_text("a\n<!-- cold:begin -->\nfigures of before\n<!-- cold:end -->\nz\n")
    data = {
        "time": "20261127T000000Z", "marks": marks(RECORD, EVENTS, 1000.0, 1500.4), "processor_seconds": 2400, "floor": 1200,
        "cache_bytes": 9e9, "machine": {"processors": 2, "system": "Debian", "kernel": "6.1"},
    }  # fmt: skip
    publish(data)
    text = (tmp_path / "README.md").read_text()
    assert (
        text.startswith("a\n<!-- cold:begin -->\n|")
        and text.endswith("<!-- cold:end -->\nz\n")
        and "figures of before" not in text
    )
    assert "| chapter 05 done | 14 min 00 s | 15 min |" in block(data)
    assert "at least 20 min on 2 processors" in text


def test_the_whole_hosts_processor_time_is_counted(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  300 50 120 9000 77 10 20 5 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert busy_seconds(stat) == 500 / os.sysconf("SC_CLK_TCK")
    assert busy_seconds() > 0


def test_the_readme_has_the_place_for_them() -> None:
    text = (paths.checkout() / "README.md").read_text()
    assert text.count("<!-- cold:begin -->") == text.count("<!-- cold:end -->") == 1
