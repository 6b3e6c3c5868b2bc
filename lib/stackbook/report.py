"""The report of a run: one page, self-contained."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#111}
table{border-collapse:collapse;width:100%;margin:1em 0}th,td{text-align:left;padding:.3em .6em;border-bottom:1px solid #ccc}
td.n{text-align:right}.passed,.unchanged{color:#00604a}.failed,.blocked,.interrupted{color:#a33c00;font-weight:bold}
details{margin:.5em 0}code{font-size:14px;overflow-wrap:anywhere}@media print{details{display:block}}
"""


def write(folder: Path) -> Path:
    """Write report.html from the run's record; returns its path."""
    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    path = folder / "report.html"
    path.write_text(page(data), encoding="utf-8")
    return path


def page(data: dict[str, Any]) -> str:
    """The page of one run's record."""
    verdict = "passed" if data["passed"] else "failed"
    rows = "".join(_chapter(c) for c in data["chapters"])
    facts = {**{f"version of {k}": v for k, v in data["versions"].items()}, **data["host"]}
    table = "".join(f"<tr><th>{_e(k)}</th><td>{_e(v)}</td></tr>" for k, v in facts.items())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>stackbook {_e(data['started'])}</title><style>{_STYLE}</style>"
        f"<h1>Run of {_e(data['started'])}: <span class={verdict}>{verdict}</span></h1>"
        f"<p>Profile {_e(data['profile']['name'])}, {data['seconds']:.0f} s.</p>"
        "<table><thead><tr><th>chapter<th>outcome<th>seconds<th>changed<th>left behind</thead>"
        f"<tbody>{rows}</tbody></table>{''.join(_steps(c) for c in data['chapters'])}"
        f"<h2>Versions and host</h2><table>{table}</table></html>"
    )


def _chapter(entry: dict[str, Any]) -> str:
    link = (
        f"<a href='{_e(entry['notebook'])}'>{_e(entry['chapter'])}</a>" if entry["notebook"] else _e(entry["chapter"])
    )
    said = entry["leaves"] if entry["outcome"] in ("passed", "unchanged") else entry["reason"]
    return (
        f"<tr><td>{link}<td class={_e(entry['outcome'])}>{_e(entry['outcome'])}<td class=n>{entry['seconds']:.1f}"
        f"<td class=n>{entry['changed']}<td>{_e(said[:400])}</tr>"
    )


def _steps(entry: dict[str, Any]) -> str:
    if not entry["steps"]:
        return ""
    rows = "".join(
        f"<tr><td>{_e(s['step'])}<td>{_e(s['title'])}<td class={_e(s['outcome'])}>{_e(s['outcome'])}"
        f"<td class=n>{s['seconds']:.1f}</tr>"
        + (f"<tr><td><td colspan=3><code>{_e(s['reason'])}</code></tr>" if s.get("reason") else "")
        for s in entry["steps"]
    )
    return f"<details open><summary>{_e(entry['chapter'])}</summary><table>{rows}</table></details>"


def _e(value: Any) -> str:
    return html.escape(str(value), quote=True)
