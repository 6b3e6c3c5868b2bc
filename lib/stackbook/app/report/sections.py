"""The parts of the page that come from the run's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from stackbook.app.report.pages import render, seconds
from stackbook.app.report.records import ChapterRecord, RunRecord, StepRecord

_LONGEST_REASON = 3000
_LONGEST_EVIDENCE = 300
_LONGEST_COMMANDS = 20_000


def head(run: RunRecord, chosen: Mapping[str, str]) -> Markup:
    """Title, verdict and what went wrong, with the first cause on top; `chosen` are links, by their text."""
    outcomes = [c.outcome for c in run.chapters]
    return render(
        "head",
        when=run.when,
        passed=run.passed,
        lab=run.profile.get("lab", "?"),
        profile=run.profile.get("name", "?"),
        target=run.profile.get("target", "?"),
        version=run.version,
        chapters=len(run.chapters),
        counts=[f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes)],
        steps=sum(len(c.steps) for c in run.chapters),
        changed=sum(c.changed for c in run.chapters),
        seconds=seconds(run.seconds),
        links=list(chosen.items()),
        failures=[_failure(c) for c in run.chapters if not c.passed],
    )


def _failure(chapter: ChapterRecord) -> dict[str, Any]:
    step = next((s for s in chapter.steps if s.outcome != "passed"), None)
    reason = chapter.reason or (step.reason if step else "") or "no reason was recorded"
    failed = step.commands[-2:] if step and chapter.outcome == "failed" else ()
    return {
        "chapter": chapter.id,
        "outcome": chapter.outcome,
        "step": step,
        "reason": reason[:_LONGEST_REASON],
        "commands": [
            {
                "line": f"{command.get('host', '')}: {command.get('command', '')}"[:1000],
                "status": command.get("rc"),
                "said": str(command.get("stderr", "")).strip()[-1000:],
            }
            for command in failed
        ],
    }


def chapters(run: RunRecord, pages: Mapping[str, str], earlier: Sequence[RunRecord]) -> Markup:
    """The table of chapters; `pages` are links to the executed notebooks by chapter."""
    rows = [
        {
            "id": chapter.id,
            "outcome": chapter.outcome,
            "seconds": f"{chapter.seconds:.1f}",
            "passed": sum(s.outcome == "passed" for s in chapter.steps),
            "steps": len(chapter.steps),
            "changed": chapter.changed,
            "said": chapter.leaves if chapter.passed else _first_line(chapter.reason),
            "page": pages.get(chapter.id),
            "earlier": _last_page(chapter, earlier),
        }
        for chapter in run.chapters
    ]
    return render("chapters", rows=rows)


def _last_page(chapter: ChapterRecord, earlier: Sequence[RunRecord]) -> dict[str, str] | None:
    """The last run that executed a chapter, if this run did not."""
    for run in earlier:
        if any(c.id == chapter.id and c.outcome == "passed" and c.notebook for c in run.chapters):
            return {"page": f"../{run.name}/{chapter.id}.html", "when": run.when}
    return None


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:300]


def steps(run: RunRecord, usual: Mapping[tuple[str, str], float], *, evidence: bool) -> Markup:
    """Every chapter with its steps, each compared with its usual duration; for chapters not run again, their proof."""
    shown = [
        {
            "id": chapter.id,
            "outcome": chapter.outcome,
            "passed": chapter.passed,
            "size": _size(chapter),
            "rows": [_step(step, usual.get((chapter.id, step.id)), evidence) for step in chapter.steps],
            "claims": [claim for claim in chapter.reason.split("; ") if claim],
        }
        for chapter in run.chapters
        if chapter.steps or chapter.outcome == "unchanged"
    ]
    return render("steps", chapters=shown)


def _size(chapter: ChapterRecord) -> str:
    if not chapter.steps:
        return "not run again"
    return "1 step" if len(chapter.steps) == 1 else f"{len(chapter.steps)} steps"


def _step(step: StepRecord, usual: float | None, evidence: bool) -> dict[str, Any]:
    return {
        "id": step.id,
        "title": step.title,
        "reason": step.reason[:_LONGEST_REASON],
        "evidence": _evidence(step) if evidence else [],
        "typed": "\n".join(step.typed)[:_LONGEST_COMMANDS] if evidence else "",
        "outcome": step.outcome,
        "seconds": f"{step.seconds:.1f}",
        "usually": f"{usual:.1f}" if usual is not None else "–",
        "changed": step.changed,
    }


def _evidence(step: StepRecord) -> list[tuple[str, str, bool]]:
    """Names and texts, and whether a text was shortened."""
    texts = ((name, _text(value)) for name, value in list(step.evidence.items())[:20])
    return [(name, text[:_LONGEST_EVIDENCE], len(text) > _LONGEST_EVIDENCE) for name, text in texts]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def lab(run: RunRecord) -> Markup:
    """The host, the machines and the parameters of the lab."""
    host = {**run.host}
    if isinstance(memory := host.pop("memory_bytes", None), int | float):
        host["memory"] = f"{memory / 2**30:.1f} GiB"
    rows = {f"host: {name}": value for name, value in host.items()}
    machines = run.profile.get("nodes")
    for node in machines if isinstance(machines, list) else []:
        if isinstance(node, dict):
            rows[f"machine {node.get('name', '?')}"] = node.get("address", "?")
    for name, value in run.profile.items():
        if name != "nodes" and value not in ("", {}, [], None):
            rows[f"parameter {name}"] = _text(value)
    return render("lab", rows=_short(rows))


def _short(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)[:1000]) for name, value in rows.items()]


_SOURCES = {
    "release": "its project's release, checksum pinned",
    "published": "its project's release, compared with the checksum beside it",
    "registry": "package registries",
}


def components(run: RunRecord) -> Markup:
    """The run's versions, with their checksums if they are in the cache; nothing is fetched or built."""
    rows = [
        {
            "name": found.get("name", ""),
            "version": found.get("version", ""),
            "sha256": found.get("sha256", ""),
            "source": _SOURCES.get(str(found.get("source", "")), found.get("source", "")),
        }
        for found in run.components
    ]
    return render("components", versions=_short(run.versions), rows=rows)


def errata(run: RunRecord) -> Markup:
    """Statements of the guide that are wrong or outdated, and that the chapters of this run show or prove."""
    from stackbook.config import ledger
    from stackbook.core import paths

    covered = ledger.coverage(paths.notebooks())
    mine = {c.id for c in run.chapters}
    rows = []
    for entry in covered.entries.values():
        places = [p for p in covered.proofs.get(entry.id, ()) if p.notebook.removesuffix(".ipynb") in mine]
        if not entry.needs_correction or not places:
            continue
        rows.append(
            {
                "id": entry.id,
                "verdict": entry.verdict,
                "command": entry.kind == "command",
                "text": entry.text,
                "correction": entry.correction,
                "how": "; ".join(dict.fromkeys(f"{p.notebook[:2]}: {ledger.HOW[p.how]}" for p in places)),
            }
        )
    return render("errata", rows=rows)
