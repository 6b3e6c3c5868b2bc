"""The pictures of the pages in the chapters: each is there, small enough, explained in both languages, and in the exported page."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from stackbook.app.report.notebooks import Exporter, load
from stackbook.core import paths

SPEC = importlib.util.spec_from_file_location("screenshots", paths.checkout() / "tools" / "screenshots.py")
assert SPEC and SPEC.loader
screenshots = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(screenshots)
LINK = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)?pictures/[\w-]+\.png)\)")


def named(folder: Path) -> dict[str, tuple[str, str]]:
    """Each picture that a chapter of a folder names: its alternative text, and the text of its cell."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            for alt, link in LINK.findall(text) if cell["cell_type"] == "markdown" else ():
                assert (folder / link).is_file(), f"{path.name}: there is no {link}"
                found[Path(link).stem] = (alt, text)
    return found


@pytest.mark.parametrize("folder", [paths.notebooks(), paths.notebooks() / "zh"], ids=["English", "中文"])
def test_each_picture_is_in_a_chapter_with_a_text_for_those_who_cannot_see_it(folder: Path) -> None:
    found = named(folder)
    assert set(found) == set(screenshots.NAMES) == {path.stem for path in screenshots.PICTURES.iterdir()}
    for name, (alt, text) in found.items():
        numbers = set(re.findall(r"\b(?:[Ff]rame|框) ([1-9])", alt))
        assert {"1", "2"} <= numbers, f"{name}: its frames are not described"
        assert numbers <= set(re.findall(r"\*\*([1-9])\*\*", text)), f"{name}: a frame is not explained"


def test_they_are_small_enough_and_as_wide_as_a_page() -> None:
    for path in screenshots.PICTURES.iterdir():
        assert path.stat().st_size < screenshots.MOST, path.name
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.size == (1280, 900), path.name


def test_a_picture_of_many_colours_gets_fewer_and_one_that_stays_too_large_is_refused(tmp_path: Path) -> None:
    noise = Image.effect_noise((1280, 900), 90)
    Image.merge("RGB", [noise, noise.rotate(90).resize(noise.size), noise.rotate(180)]).save(tmp_path / "noise.png")
    with pytest.raises(ValueError, match=r"small\.png has \d+ bytes with 16 colours, and may have 150000"):
        screenshots.reduced(tmp_path / "noise.png", tmp_path / "small.png")
    Image.linear_gradient("L").resize((1280, 900)).save(tmp_path / "plain.png")
    assert screenshots.reduced(tmp_path / "plain.png", tmp_path / "small.png") < screenshots.MOST


def test_what_was_not_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert screenshots.main(str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("not there: prometheus-query.png, kiali-graph.png")


def test_the_exported_page_has_the_picture_itself(tmp_path: Path) -> None:
    book = load(paths.notebooks() / "11-tracing.ipynb")
    book["cells"] = [cell for cell in book["cells"] if "pictures/" in "".join(cell["source"])]
    Exporter().export(book, tmp_path / "11-tracing.html", beside=())
    page = (tmp_path / "11-tracing.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "pictures/" not in page and "Frame 1 is around" in page
