"""What the README says of a lab's life, from figures that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from stackbook.app import life_benchmark
from stackbook.core import paths

ROUNDS = [
    {name: seconds + number for name, seconds in life_benchmark.PROMISED.items()} | {life_benchmark.SIZE: 1e9}
    for number in range(3)
]


def test_medians_go_into_the_readme_and_nothing_else_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "checkout", lambda: tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- life:begin -->\nold\n<!-- life:end -->\nafter\n")
    said = life_benchmark.publish(ROUNDS)
    assert readme.read_text() == f"before\n<!-- life:begin -->\n{said}\n<!-- life:end -->\nafter\n"
    assert "| stop | 21 s | 20 s |" in said and "A snapshot takes 1.0 GB (medians of 3 rounds; " in said


def test_the_readme_has_the_marks() -> None:
    text = (paths.checkout() / "README.md").read_text()
    assert text.count("<!-- life:begin -->") == text.count("<!-- life:end -->") == 1


def test_a_readme_without_the_place_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything behind the first mark went where the second one was missing."""
    from stackbook.app import readme_figures
    from stackbook.core import paths
    from stackbook.core.errors import InputError

    monkeypatch.setattr(paths, "checkout", lambda: tmp_path)
    (tmp_path / "README.md").write_text("before\n<!-- life:begin -->\nold\nafter\n")
    with pytest.raises(InputError, match="no place for the figures of life"):
        readme_figures.put("life", "new")
    assert (tmp_path / "README.md").read_text() == "before\n<!-- life:begin -->\nold\nafter\n"
