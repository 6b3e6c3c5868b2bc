"""The report of a run: report.html, one page that loads nothing, and the executed notebooks as pages beside it.

A report never changes the outcome of its run: if a part fails, the page and stderr say so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stackbook.app.report import notebooks, records, sections, timings
from stackbook.app.report.pages import render
from stackbook.app.report.records import RunRecord
from stackbook.core.redact import redact

# Small enough for e-mail. Pictures that do not fit are only on the chapter's own page.
MOST_BYTES = 5_000_000
_MOST_OF_PICTURES = 3_500_000
_TOO_MANY = Markup("<p>There are too many steps for this page: run.json has them.</p>")
_ORDER = ("Chapters", "Timings", "Steps", "Plots", "Errata", "Versions and checksums", "Host, machines, parameters")


def write(folder: Path) -> Path:
    """Write report.html and the chapters' pages from a run's folder; returns the report's path."""
    path = folder / "report.html"
    trouble: list[str] = []
    try:
        path.write_text(_report(folder, trouble), encoding="utf-8")
    except Exception as error:  # whatever the error, it must not change the finished run's outcome
        trouble.append(f"the report could not be created: {_said(error)}")
        try:
            path.write_text(render("no_report", title="No report", trouble=trouble), encoding="utf-8")
        except OSError as second:
            trouble.append(f"the report's folder cannot be written: {_said(second)}")
    for line in trouble:
        print(f"stackbook: report: {redact(line)}", file=sys.stderr)
    return path


def page(data: Any, *, name: str = "") -> str:
    """The page of a single run's record, without earlier runs and pictures.

    Raises:
        ValueError: `data` is not the record of a run.
    """
    return _assemble(records.parse(data, name=name), [], 0, {}, [], [])


def _report(folder: Path, trouble: list[str]) -> str:
    run = records.read(folder)
    earlier, broken = records.earlier(folder.resolve())
    pages, pictures = _books(folder, run, trouble)
    return _assemble(run, earlier, broken, pages, pictures, trouble)


def _books(folder: Path, run: RunRecord, trouble: list[str]) -> tuple[dict[str, str], list[notebooks.Picture]]:
    """Links to the executed notebooks by chapter, and their pictures; a notebook that cannot be exported is linked directly."""
    pages: dict[str, str] = {}
    pictures: list[notebooks.Picture] = []
    executed = [c for c in run.chapters if c.notebook and (folder / c.notebook).is_file()]
    exporter: notebooks.Exporter | None = None
    for chapter in executed:
        pages[chapter.id] = chapter.notebook
        try:
            book = notebooks.load(folder / chapter.notebook)
            pictures += notebooks.pictures(book, chapter.id)
            exporter = exporter or notebooks.Exporter()
            target = (folder / chapter.notebook).with_suffix(".html")
            exporter.export(book, target, beside=[c.notebook.removesuffix(".ipynb") for c in executed])
            pages[chapter.id] = target.name
        except Exception as error:  # nbconvert raises what its filters raise
            trouble.append(f"{chapter.notebook} could not be exported: {_said(error)}")
    return pages, pictures


def _assemble(
    run: RunRecord, earlier: Sequence[RunRecord], broken: int, pages: Mapping[str, str],
    pictures: Sequence[notebooks.Picture], trouble: list[str],
) -> str:  # fmt: skip
    """The page within its size limit: it drops pictures first, then evidence, then the steps."""
    common = _parts(run, earlier, broken, pages, trouble)
    text = ""
    for budget, detail in ((_MOST_OF_PICTURES, 2), (0, 2), (0, 1), (0, 0)):
        steps = sections.steps(run, timings.usual_steps(earlier), evidence=detail == 2) if detail else _TOO_MANY
        parts = {**common, "Steps": steps, "Plots": _plots(pictures, pages, budget)}
        shown = [{"anchor": _anchor(name), "name": name, "body": parts[name]} for name in _ORDER if parts[name]]
        links = {name.split(",")[0]: f"#{_anchor(name)}" for name in _ORDER if parts[name]}
        title = f"stackbook, run of {run.when}"
        text = render("report", title=title, head=sections.head(run, links), trouble=trouble, sections=shown)
        if len(text.encode()) < MOST_BYTES:
            return text
    raise ValueError(f"the page has {len(text.encode())} bytes even without steps and pictures")


def _parts(
    run: RunRecord, earlier: Sequence[RunRecord], broken: int, pages: Mapping[str, str], trouble: list[str]
) -> dict[str, str]:
    """The sections with a single form; if one fails, it is left out and the page says so."""
    made: dict[str, Callable[[], str]] = {
        "Chapters": lambda: sections.chapters(run, pages, earlier),
        "Timings": lambda: timings.section(run, earlier, broken),
        "Errata": lambda: sections.errata(run),
        "Versions and checksums": lambda: sections.components(run),
        "Host, machines, parameters": lambda: sections.lab(run),
    }
    found = {}
    for name, make in made.items():
        try:
            found[name] = make()
        except Exception as error:  # a broken cache or notebook must not break the rest of the page
            found[name] = ""
            trouble.append(f"the section {name!r} could not be created: {_said(error)}")
    return found


def _plots(pictures: Sequence[notebooks.Picture], pages: Mapping[str, str], budget: int) -> Markup:
    """The pictures that fit, in order; links for the others."""
    plots, left = [], budget
    for picture in pictures:
        fits = len(picture.data) <= left
        left -= len(picture.data) if fits else 0
        plots.append(
            {
                "chapter": picture.chapter,
                "page": pages.get(picture.chapter, ""),
                "alt": picture.alt,
                "least": picture.least,
                "data": Markup(picture.data) if fits else "",  # base64, which contains nothing to mask
            }
        )
    return render("plots", plots=plots)


def _anchor(name: str) -> str:
    return "part-" + name.split(",")[0].lower().replace(" ", "-")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


__all__ = ["MOST_BYTES", "page", "write"]
