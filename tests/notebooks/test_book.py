"""The book: every link and anchor leads somewhere, every picture has a text, and what is wrong fails the build."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import book_site
import pytest
from book_site import build
from stackbook.config import chapters

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of the committed chapters."""
    return book_site.site(tmp_path_factory.mktemp("book") / "site")


class Page(HTMLParser):
    """Links, anchors and pictures of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append(found.get("alt", ""))


def broken(site: Path) -> Iterator[str]:
    """Links within the site that lead nowhere, and what a page loads from elsewhere."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.parent.name != "_static"}
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("http:", "https:", "mailto:", "data:")):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.exists():
                yield f"{path.name}: {link}"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{path.name}: {link} has no such anchor"


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    assert list(broken(site)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">b</a><a href="c.html">c</a><a href="#x">here</a>')
    (tmp_path / "b.html").write_text('<p id="z">')
    assert list(broken(tmp_path)) == ["a.html: b.html#y has no such anchor", "a.html: c.html"]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """It is read from a file, also where nothing is reached."""
    for path in site.rglob("*.html"):
        assert 'src="http' not in path.read_text(encoding="utf-8"), path.name
        assert 'rel="stylesheet" href="http' not in path.read_text(encoding="utf-8"), path.name


def test_every_chapter_is_there_with_its_outputs_and_its_pictures_texts(site: Path) -> None:
    for chapter in chapters.available():
        page = Page(site / "notebooks" / f"{chapter.id}.html")
        text = (site / "notebooks" / f"{chapter.id}.html").read_text(encoding="utf-8")
        cells = json.loads(chapter.notebook.read_text(encoding="utf-8"))["cells"]
        outputs = [o for c in cells for o in c.get("outputs", [])]
        texts = {o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})}
        shown = [alt for alt in page.pictures if alt]
        assert all(any(wanted in alt for alt in shown) for wanted in texts), chapter.id
        assert "✓" in text, chapter.id


def test_each_page_leads_to_the_other_language(site: Path) -> None:
    for chapter in chapters.available():
        english, chinese = (site / place / "notebooks" / f"{chapter.id}.html" for place in ("", "zh"))
        assert chinese.exists(), chapter.id
        for page, other in ((english, chinese), (chinese, english)):
            targets = [(page.parent / link).resolve() for link in Page(page).links if link.endswith(".html")]
            assert other.resolve() in targets, page


def test_it_is_small(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 40_000_000


def test_a_link_to_nowhere_fails_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "chapters"
    folder.mkdir()
    first = chapters.available()[0].notebook
    book = json.loads(first.read_text(encoding="utf-8"))
    book["cells"][0]["source"] = ["# A chapter\n", "[nowhere](98-nowhere.ipynb)"]
    (folder / first.name).write_text(json.dumps(book))
    done = build("--chapters", str(folder), "--output", str(tmp_path / "site"))
    assert done.returncode == 1 and "98-nowhere" in done.stderr, done.stderr
    assert not (tmp_path / "site").exists()


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    done = build("--output", str(tmp_path))
    assert done.returncode == 2 and "name another folder" in done.stderr
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.fixture
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("book_build", ROOT / "tools" / "book" / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_anchor_is_written_as_the_book_has_it(builder: ModuleType) -> None:
    cells = [{"cell_type": "markdown", "source": ["see [there](09-grpc.ipynb#In-the-mesh)"]}]
    assert builder.prepared({"cells": cells})["cells"][0]["source"] == "see [there](09-grpc.ipynb#in-the-mesh)"
    shutil.rmtree(ROOT / "tools" / "book" / "__pycache__", ignore_errors=True)
