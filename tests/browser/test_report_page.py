"""The report and the chapters' pages in a real browser: on a phone, with text that can be read, and on paper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab_page
import pytest
from stackbook.app import report
from stackbook.config import chapters

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PHONE, DESK = (360, 740), (1280, 900)
STEP = {"event": "step-end", "chapter": "x", "title": "a step of the chapter", "outcome": "passed", "seconds": 1.5, "changed": 1,
        "reason": "", "commands": [], "evidence": {"seen": "what a long line of evidence says, word after word " * 6}}  # fmt: skip
FAILED = {**STEP, "step": "broken", "outcome": "failed", "reason": "CheckFailed: " + "a reason of many words " * 12,
          "commands": [{"rc": 1, "host": "k8s-master", "command": "kubectl get " + "pods," * 60, "stderr": "no"}]}  # fmt: skip

SMALL_TEXT = """() => {
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || ['STYLE', 'SCRIPT', 'TITLE'].includes(element.tagName) || !element.getClientRects().length) continue;
    const size = parseFloat(getComputedStyle(element).fontSize);
    if (size < 12) found.add(`${text.slice(0, 30)}: ${size} px`);
  }
  return [...found].slice(0, 10);
}"""
TOO_WIDE = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  return wide <= 0 ? [] : [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .slice(0, 5).map(e => `${wide} px too wide: ${e.tagName} ${e.className} ${e.textContent.slice(0, 30)}`);
}"""
# A picture is drawn with text of 12 points at 100 dots per inch, which is 12 px high at 0.72 of its size.
SMALL_PICTURES = """() => [...document.images].filter(i => i.getBoundingClientRect().width < 0.715 * Math.min(i.naturalWidth, 1600))
  .map(i => `${i.alt.slice(0, 30)}: ${i.getBoundingClientRect().width} of ${i.naturalWidth} px`)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of all chapters leaves, with one that failed and an earlier run to compare with."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("20260101T000000Z", "20260102T030405Z"):
        run = root / name
        run.mkdir()
        found = []
        for chapter in chapters.available():
            shutil.copy(chapter.notebook, run)
            found.append({"chapter": chapter.id, "outcome": "passed", "seconds": 9.5, "changed": 2, "leaves": chapter.leaves,
                          "reason": "", "notebook": chapter.notebook.name, "steps": [{**STEP, "step": "one"}]})  # fmt: skip
        found[-1] |= {"outcome": "failed", "reason": FAILED["reason"], "steps": [FAILED]}
        data = {"schema": 1, "started": name, "seconds": 160.0, "stackbook": "0.1.0", "passed": False, "chapters": found,
                "profile": {"name": "embedded", "lab": "stackbook", "target": "embedded",
                            "nodes": [{"name": "k8s-master", "address": "192.168.98.3"}]},
                "versions": {"kubernetes": "1.36.3"}, "host": {"processors": 2, "memory_bytes": 8 * 2**30}}  # fmt: skip
        (run / "run.json").write_text(json.dumps(data), encoding="utf-8")
    report.write(run)
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lab_page.demand_chromium()
    with lab_page.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def shown(page: Any, path: Path, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(path.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_report_fits_and_can_be_read(page: Any, folder: Path, pictures: Path, size: tuple[int, int]) -> None:
    shown(page, folder / "report.html", size)
    page.screenshot(path=str(pictures / f"report-{size[0]}.png"))
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(SMALL_TEXT) == []
    assert page.evaluate(SMALL_PICTURES) == []
    assert page.locator("img").count() >= 20
    assert (folder / "report.html").stat().st_size < report.MOST_BYTES


@pytest.mark.parametrize("chapter", [
    pytest.param(c.id, id=c.id, marks=() if c.number in ("02", "06", "12", "14") else pytest.mark.more) for c in chapters.available()
])  # fmt: skip
def test_a_chapters_page_fits_a_phone(page: Any, folder: Path, chapter: str) -> None:
    shown(page, folder / f"{chapter}.html", PHONE)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(SMALL_TEXT) == []
    assert page.evaluate(SMALL_PICTURES) == []


def test_it_can_be_printed(page: Any, folder: Path, pictures: Path) -> None:
    """Nothing is cut off at the right of an A4 page, and what is folded together on the screen is on paper."""
    shown(page, folder / "report.html", (718, 1000))  # A4 less margins of 10 mm, at 96 dots per inch
    page.emulate_media(media="print")
    assert page.evaluate(TOO_WIDE) == []
    data = page.pdf(path=str(pictures / "report.pdf"), format="A4", print_background=True)
    page.emulate_media(media="screen")
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page") > 3


def test_these_checks_find_what_they_are_for(page: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<body><p style="font-size:11px">small</p><p style="width:900px">wide</p></body>', encoding="utf-8")
    shown(page, bad, PHONE)
    assert page.evaluate(SMALL_TEXT) == ["small: 11 px"]
    assert page.evaluate(TOO_WIDE)


def test_a_picture_that_is_shrunk_is_found(page: Any, folder: Path) -> None:
    shown(page, folder / "report.html", PHONE)
    page.add_style_tag(content="img{min-width:0!important;max-width:100%!important}")
    assert page.evaluate(SMALL_PICTURES)
