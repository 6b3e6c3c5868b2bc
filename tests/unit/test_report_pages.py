from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup
from setuptools import Distribution
from setuptools.command.build_py import build_py
from stackbook.app.report import pages

ROOT = Path(__file__).parents[2]
TEMPLATES = Path(pages.__file__).parent / "templates"
TOKEN = "abcdef.0123456789abcdef"


def test_texts_are_escaped_and_masked_markup_is_kept() -> None:
    page = pages.render("lab", rows=[("<b>", f"join {TOKEN}"), ("kept", Markup("<i>x</i>")), ("status", 3)])
    assert "&lt;b&gt;" in page
    assert TOKEN not in page
    assert "join ***" in page
    assert "<i>x</i>" in page
    assert "<td>3" in page


def test_what_a_template_lacks_is_an_error_and_no_gap() -> None:
    with pytest.raises(jinja2.UndefinedError, match="trouble"):
        pages.render("no_report", title="No report")


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.j2")), ids=lambda path: path.name)
def test_no_template_goes_round_the_escaping(path: Path) -> None:
    assert not re.search(r"\|\s*safe\b|autoescape", path.read_text(encoding="utf-8"))


def test_a_built_package_has_the_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    command = build_py(distribution)
    command.finalize_options()
    command.manifest_files = {}
    shipped = command.find_data_files("stackbook.app.report", "lib/stackbook/app/report")
    assert {path.name for path in TEMPLATES.iterdir()} == {Path(path).name for path in shipped}
