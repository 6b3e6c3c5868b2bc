"""Temporary folders go, whoever made them and however that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stackbook import scratch


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_its_block(elsewhere: Path) -> None:
    with scratch.folder("trial") as made:
        assert made.parent == elsewhere
        assert made.stat().st_mode & 0o77 == 0
    assert not made.exists()


def test_what_a_killed_process_left_goes_with_the_next(elsewhere: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = elsewhere / f"stackbook-trial-{ended.pid}-abc123"
    of_another_name = elsewhere / f"stackbook-other-{ended.pid}-abc123"
    still_used = elsewhere / f"stackbook-trial-{os.getpid()}-abc123"
    foreign = elsewhere / "stackbook-trial-notes-x"
    for path in (left, of_another_name, still_used, foreign):
        (path / "inside").mkdir(parents=True)
    with scratch.folder("trial"):
        assert not left.exists()
        assert of_another_name.exists() and still_used.exists() and foreign.exists()
