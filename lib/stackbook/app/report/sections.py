"""The parts of the page that come from the run's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.app.report.records import ChapterRecord, RunRecord, StepRecord
from stackbook.app.report.style import e, outcome, seconds

_LONGEST_REASON = 3000
_LONGEST_EVIDENCE = 300


def head(run: RunRecord, chosen: Mapping[str, str]) -> str:
    """Title, verdict and what went wrong; `chosen` are links to other places by their text."""
    steps = [s for c in run.chapters for s in c.steps]
    counts = ", ".join(
        f"{n} {e(word)}"
        for word in dict.fromkeys(c.outcome for c in run.chapters)
        if (n := sum(c.outcome == word for c in run.chapters))
    )
    profile = run.profile
    verdict = '<span class="good">✓ passed</span>' if run.passed else '<span class="bad">✗ not passed</span>'
    links = "".join(f'<a href="{e(target)}">{e(text)}</a>' for text, target in chosen.items())
    return (
        f"<h1>Run of {e(run.when)}: {verdict}</h1>"
        f"<p>Lab <b>{e(profile.get('lab', '?'))}</b>, profile {e(profile.get('name', '?'))}, target "
        f"{e(profile.get('target', '?'))}; stackbook {e(run.version)}.</p>"
        f"<p>{len(run.chapters)} chapters ({counts or 'none'}), {len(steps)} steps, "
        f"{sum(c.changed for c in run.chapters)} changes to the lab, {seconds(run.seconds)}.</p>"
        f"<nav>{links}</nav>{_trouble(run)}"
    )


def _trouble(run: RunRecord) -> str:
    """What did not pass, with the first cause on top."""
    found = [c for c in run.chapters if not c.passed]
    if not found:
        return ""
    parts = []
    for chapter in found:
        step = next((s for s in chapter.steps if s.outcome != "passed"), None)
        reason = chapter.reason or (step.reason if step else "") or "no reason was recorded"
        where = f", step {e(step.id)}: {e(step.title)}" if step else ""
        parts.append(
            f"<h3>{outcome(chapter.outcome)} {e(chapter.id)}{where}</h3><pre>{e(reason[:_LONGEST_REASON])}</pre>"
        )
        if step and chapter.outcome == "failed":
            parts += [_command(c) for c in step.commands[-2:]]
    return f'<section class="box" aria-label="What did not pass">{"".join(parts)}</section>'


def _command(data: Mapping[str, Any]) -> str:
    said = str(data.get("stderr", "")).strip()[-1000:]
    line = f"{data.get('host', '')}: {data.get('command', '')}"[:1000]
    return f"<pre>{e(line)}\nstatus {e(data.get('rc'))}{chr(10) if said else ''}{e(said)}</pre>"


def chapters(run: RunRecord, pages: Mapping[str, str], earlier: Sequence[RunRecord]) -> str:
    """The table of chapters; `pages` are links to the executed notebooks by chapter."""
    rows = []
    for chapter in run.chapters:
        passed = sum(s.outcome == "passed" for s in chapter.steps)
        name = f'<a href="#{e(chapter.id)}">{e(chapter.id)}</a>' if chapter.steps else e(chapter.id)
        said = chapter.leaves if chapter.passed else _first_line(chapter.reason)
        link = f'<a href="{e(pages[chapter.id])}">notebook</a>' if chapter.id in pages else _last_page(chapter, earlier)
        rows.append(
            f'<tr><td class="word">{name}<td>{outcome(chapter.outcome)}<td class="n">{chapter.seconds:.1f}'
            f'<td class="n late">{f"{passed} of {len(chapter.steps)}" if chapter.steps else "–"}'
            f'<td class="n late">{chapter.changed}<td class="late">{e(said)}<td class="word">{link}</tr>'
        )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">chapter<th scope="col">outcome<th scope="col" class="n">seconds'
        '<th scope="col" class="n late">steps passed<th scope="col" class="n late">changes'
        f'<th scope="col" class="late">left behind, or why not<th scope="col">executed</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _last_page(chapter: ChapterRecord, earlier: Sequence[RunRecord]) -> str:
    """Where a chapter that was not executed now was executed last."""
    for run in earlier:
        if any(c.id == chapter.id and c.outcome == "passed" and c.notebook for c in run.chapters):
            return f'<a href="../{e(run.name)}/{e(chapter.id)}.html" title="{e(run.when)}">earlier</a>'
    return "–"


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:300]


def steps(run: RunRecord, usual: Mapping[tuple[str, str], float], *, evidence: bool) -> str:
    """Every chapter with its steps, each against what it usually takes."""
    parts = []
    for chapter in run.chapters:
        if not chapter.steps and chapter.outcome != "unchanged":
            continue
        body = _proof(chapter) if not chapter.steps else _steps(chapter, usual, evidence)
        shut = "" if chapter.passed else " open"
        title = f"{e(chapter.id)}: {_steps_of(chapter)}" if chapter.steps else f"{e(chapter.id)}: not run again"
        parts.append(
            f'<details id="{e(chapter.id)}"{shut}><summary>{title} {outcome(chapter.outcome)}</summary>{body}</details>'
        )
    return "".join(parts)


def _steps_of(chapter: ChapterRecord) -> str:
    return "1 step" if len(chapter.steps) == 1 else f"{len(chapter.steps)} steps"


def _proof(chapter: ChapterRecord) -> str:
    claims = "".join(f"<li>{e(claim)}" for claim in chapter.reason.split("; ") if claim)
    return f"<p>Still so, as was checked in this run:</p><ul>{claims}</ul>"


def _steps(chapter: ChapterRecord, usual: Mapping[tuple[str, str], float], evidence: bool) -> str:
    rows = []
    for step in chapter.steps:
        before = usual.get((chapter.id, step.id))
        why = f"<pre>{e(step.reason[:_LONGEST_REASON])}</pre>" if step.reason else ""
        proof = _evidence(step) if evidence else ""
        often = f"{before:.1f}" if before is not None else "–"
        rows.append(
            f'<tr><td class="late word"><code>{e(step.id)}</code><td>{e(step.title)}{why}{proof}'
            f'<td>{outcome(step.outcome)}<td class="n">{step.seconds:.1f}<td class="n late">{often}'
            f'<td class="n late">{step.changed}</tr>'
        )
    return (
        '<table><thead><tr><th scope="col" class="late">step<th scope="col">what it does<th scope="col">outcome'
        '<th scope="col" class="n">seconds<th scope="col" class="n late">usually<th scope="col" class="n late">changes'
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _evidence(step: StepRecord) -> str:
    if not step.evidence:
        return ""
    items = []
    for key, value in list(step.evidence.items())[:20]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        items.append(
            f"<li><b>{e(key)}</b>: {e(text[:_LONGEST_EVIDENCE])}{'…' if len(text) > _LONGEST_EVIDENCE else ''}"
        )
    return f"<details><summary>evidence</summary><ul>{''.join(items)}</ul></details>"


def lab(run: RunRecord) -> str:
    """The host, the machines and the parameters of the lab."""
    host = {**run.host}
    if isinstance(memory := host.pop("memory_bytes", None), int | float):
        host["memory"] = f"{memory / 2**30:.1f} GiB"
    machines = run.profile.get("nodes")
    rows = {f"host: {k}": v for k, v in host.items()}
    for node in machines if isinstance(machines, list) else []:
        if isinstance(node, dict):
            rows[f"machine {node.get('name', '?')}"] = node.get("address", "?")
    for name, value in run.profile.items():
        if name != "nodes" and value not in ("", {}, [], None):
            rows[f"parameter {name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"<table><tbody>{''.join(_row(k, v) for k, v in rows.items())}</tbody></table>"


def _row(name: str, value: Any) -> str:
    return f'<tr><th scope="row">{e(name)}</th><td>{e(str(value)[:1000])}</tr>'


_SOURCES = {
    "release": "its project's release, checksum pinned",
    "published": "its project's release, compared with the checksum beside it",
    "registry": "package registries",
}


def components(run: RunRecord) -> str:
    """Versions of the run, and what of it lies in the cache with its checksum; nothing is fetched or built."""
    versions = "".join(_row(k, v) for k, v in run.versions.items())
    return (
        f"<table><tbody>{versions}</tbody></table><details><summary>Checksums of the components in the cache</summary>"
        '<table><thead><tr><th scope="col">component<th scope="col" class="late">version<th scope="col">SHA-256'
        f'<th scope="col" class="late">source</thead>'
        f"<tbody>{_cached(run)}</tbody></table></details>"
    )


def _cached(run: RunRecord) -> str:
    rows = []
    for found in run.components:
        name, version, digest, source = (e(str(found.get(k, ""))) for k in ("name", "version", "sha256", "source"))
        source = _SOURCES.get(source, source)
        rows.append(f'<tr><td>{name}<td class="late">{version}<td><code>{digest}</code><td class="late">{source}</tr>')
    return "".join(rows)


def errata(run: RunRecord) -> str:
    """What the guide says wrongly or no longer rightly, of what the chapters of this run show or prove."""
    from stackbook.config import ledger
    from stackbook.core import paths

    covered = ledger.coverage(paths.notebooks())
    mine = {c.id for c in run.chapters}
    rows = []
    for entry in covered.entries.values():
        places = [p for p in covered.proofs.get(entry.id, ()) if p.notebook.removesuffix(".ipynb") in mine]
        if not entry.needs_correction or not places:
            continue
        how = "; ".join(dict.fromkeys(f"{p.notebook[:2]}: {ledger.HOW[p.how]}" for p in places))
        said = f"<code>{e(entry.text)}</code>" if entry.kind == "command" else e(entry.text)
        rows.append(
            f'<tr><td class="word">{e(entry.id)}<br><span class="quiet">{e(entry.verdict)}</span><td>{said}'
            f'<td>{e(entry.correction)}<td class="late">{e(how)}</tr>'
        )
    if not rows:
        return "<p>The chapters of this run correct nothing.</p>"
    return (
        f"<details><summary>{len(rows)} corrections that belong to the chapters of this run</summary><table><thead><tr>"
        '<th scope="col">id<th scope="col">the guide<th scope="col">today<th scope="col" class="late">chapter: proof'
        f"</thead><tbody>{''.join(rows)}</tbody></table></details>"
    )
