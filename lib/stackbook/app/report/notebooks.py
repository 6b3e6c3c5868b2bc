"""Exporting the executed notebooks as pages beside the report, and their pictures for the report itself."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stackbook.app import import_patch
from stackbook.app.report.pages import render
from stackbook.core import paths
from stackbook.core.redact import redact

# Claims are folded: the page shows what is done. On paper they are unfolded, as every fold is (style.css).
_FOLDED = """\
{%- extends 'index.html.j2' -%}
{%- block input_group -%}
{%- if cell.metadata.get('jupyter', {}).get('source_hidden') -%}
<details class="checked"><summary>What is checked here</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
"""


@dataclass(frozen=True)
class Picture:
    """A plot of an executed notebook: `data` is base64 of a PNG, `alt` says what it shows."""

    chapter: str
    data: str
    alt: str

    @property
    def least(self) -> str:
        """CSS for the minimum width at which its text (12 points at 100 dots per inch) is 12 px high: 0.72 of its own width."""
        try:
            head = base64.b64decode(self.data[:32], validate=True)
            width = int.from_bytes(head[16:20], "big") if head.startswith(b"\x89PNG") else 0
        except ValueError:
            return ""
        return f"min-width:{min(width, 1600) * 0.72:.0f}px"


def load(path: Path) -> dict[str, Any]:
    """Read a notebook, with secrets masked in its texts.

    Raises:
        ValueError: it cannot be read, or is not a notebook.
    """
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read: {type(error).__name__}") from error
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        raise ValueError(f"{path.name} is not a notebook")
    cleaned: dict[str, Any] = _clean(book)
    return cleaned


def _clean(value: Any, key: str = "") -> Any:
    """Redact texts, and leave pictures as they are; lists of lines are joined, because a secret can span two lines."""
    if key.startswith("image/") and (isinstance(value, str) or _lines(value)):
        return "".join(value)
    if _lines(value) and key in ("source", "text", "text/plain", "text/html", "traceback"):
        joined = redact(("\n" if key == "traceback" else "").join(value))
        return [joined] if key == "traceback" else joined
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {k: _clean(v, k) for k, v in value.items()}
    return value


def _lines(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(line, str) for line in value)


def pictures(book: dict[str, Any], chapter: str) -> Iterable[Picture]:
    """Every PNG among a notebook's outputs, in order."""
    for cell in book["cells"]:
        outputs = cell.get("outputs") if isinstance(cell, dict) else None
        for output in outputs if isinstance(outputs, list) else []:
            data = output.get("data") if isinstance(output, dict) else None
            png = data.get("image/png") if isinstance(data, dict) else None
            if not isinstance(png, str) or not re.fullmatch(r"[A-Za-z0-9+/=\s]+", png):
                continue
            metadata = output.get("metadata")
            about = metadata.get("image/png") if isinstance(metadata, dict) else None
            alt = about.get("alt") if isinstance(about, dict) else None
            yield Picture(
                chapter, "".join(png.split()), alt if isinstance(alt, str) and alt.strip() else f"A plot of {chapter}"
            )


class Exporter:
    """Notebooks as pages that load nothing, in the report's own style."""

    def __init__(self) -> None:
        import_patch.spare_grammar()
        from nbconvert import HTMLExporter
        from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

        self._exporter = HTMLExporter(template_name="basic", raw_template=_FOLDED, embed_images=True)  # type: ignore[no-untyped-call]
        self._highlighting = HtmlFormatter(style="sas").get_style_defs(".highlight")

    def export(self, book: dict[str, Any], target: Path, *, beside: Iterable[str]) -> None:
        """Write one notebook as a page; links to the chapters `beside` it lead to their pages."""
        import nbformat

        node = nbformat.from_dict(book)  # type: ignore[no-untyped-call]
        pictures = {
            "metadata": {"path": str(paths.notebooks())}
        }  # a chapter names its pictures by their place beside it
        body, _ = self._exporter.from_notebook_node(node, resources=pictures)
        known = set(beside)

        def link(match: re.Match[str]) -> str:
            chapter, _, anchor = html.unescape(match[2]).partition(".ipynb")
            if chapter in known:
                return f'{match[1]}href="{chapter}.html{html.escape(anchor)}"'
            return match[0] if re.match(r"(https?:|#)", match[2]) else match[1].rstrip()

        body = re.sub(r'(<a\b[^>]*?\s)href="([^"]*)"', link, body)
        page = render("notebook", title=target.stem, highlighting=Markup(self._highlighting), body=Markup(body))
        target.write_text(page, encoding="utf-8")
