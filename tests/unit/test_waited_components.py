"""A record says which step waited for which component, also where a cell asks for it between two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from stackbook.lab.lab import Lab


def test_a_wait_between_two_steps_belongs_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path))
    lab = Lab.open("13-delivery")
    waited = lab.artifacts._waited
    waited(["gitea"], 122.04)
    with lab.step("first-start", "the first step") as first:
        waited(["node"], 3.0)
    with lab.step("gitea", "the second step") as second:
        pass
    assert first.evidence["waited_for_components"] == {"gitea": 122.0, "node": 3.0}
    assert second.evidence == {}
