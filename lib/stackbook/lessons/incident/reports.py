"""What a learner hands in: the cause, its place, and evidence that can be looked up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean
from stackbook.lessons.incident.causes import CAUSES, PLACES
from stackbook.lessons.incident.facts import COLUMNS, LOG, TRACE


@dataclass(frozen=True)
class Metric:
    """A PromQL query and its one value.

    Attributes:
        query: the query; it has to name the service that it is evidence about.
        value: the value that was read; None if there was no answer.
        at: the Unix time of the query.
    """

    query: str
    value: float | None
    at: float

    def __str__(self) -> str:
        return f"metric {self.query}: {'no answer' if self.value is None else f'{self.value:.3g}'}"


@dataclass(frozen=True)
class Row:
    """A span or a log line, and what it shows.

    Attributes:
        signal: `trace` or `log`.
        id: "trace id/span id" of the span, or the id of the log line's document.
        shows: columns (`facts.COLUMNS`) with their values.
    """

    signal: str
    id: str
    shows: Mapping[str, Any]

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.shows.items())
        return f"{'span' if self.signal == TRACE else 'log line'}: {said or 'nothing'}"


Evidence = Metric | Row


@dataclass(frozen=True)
class Finding:
    """One cause, its place, and the evidence."""

    cause: str
    place: str
    evidence: Sequence[Evidence] = field(default_factory=tuple)


def metric(query: str, value: float | None, at: float) -> Metric:
    """Evidence from Prometheus; see `Metric`."""
    return Metric(query, value, at)


def row(line: Mapping[Any, Any], *columns: str) -> Row:
    """Evidence from a row of `Witnesses.spans` or `Witnesses.lines`: the row, and the columns that show the symptom or the sign."""
    return Row(str(line["signal"]), str(line["id"]), {name: line[name] for name in columns})


def check(finding: Finding) -> Finding:
    """Refuse a finding whose words are not in the vocabulary.

    Raises:
        InputError: a word is unknown; the fix suggests a similar one.
    """
    for what, word, known in (("cause", finding.cause, CAUSES), ("place", finding.place, PLACES)):
        if word not in known:
            raise InputError(
                f"{what} {word!r} is not in the vocabulary", fix=did_you_mean(str(word), known, f"{what}s")
            )
    for one in finding.evidence:
        if isinstance(one, Row) and (strange := sorted(set(one.shows) - set(COLUMNS))):
            raise InputError(f"a {one.signal} has no column {strange[0]!r}", fix=f"use one of {', '.join(COLUMNS)}")
    return finding


def as_text(findings: Sequence[Finding]) -> str:
    """Findings as YAML, as `parsed` reads them."""
    return yaml.safe_dump([_plain(one) for one in findings], sort_keys=False, allow_unicode=True, width=1000)


def _plain(finding: Finding) -> dict[str, Any]:
    evidence: list[dict[str, Any]] = []
    for one in finding.evidence:
        if isinstance(one, Metric):
            evidence.append({"metric": one.query, "value": one.value, "at": one.at})
        else:
            evidence.append({one.signal: one.id, "shows": {name: _number(value) for name, value in one.shows.items()}})
    return {"cause": finding.cause, "place": finding.place, "evidence": evidence}


def _number(value: Any) -> Any:
    """A value that YAML can write: the numbers in a table have numpy's types."""
    return value if isinstance(value, str) else value.item() if hasattr(value, "item") else value


def parsed(text: str) -> list[Finding]:
    """The findings of a report in YAML; those without a cause are left out.

    Raises:
        InputError: it cannot be read; the message says why.
    """
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = f"the report is not valid YAML: {' '.join(str(error).split())[:160]}"
        raise InputError(said, fix="correct the YAML") from error
    entries = found if isinstance(found, list) else [found] if isinstance(found, dict) else []
    return [_finding(entry) for entry in entries if isinstance(entry, dict) and entry.get("cause")]


def _finding(entry: Mapping[str, Any]) -> Finding:
    pieces = entry.get("evidence") or []
    if not isinstance(pieces, list):
        raise InputError("the evidence is not a list", fix="begin each piece with a dash")
    finding = Finding(str(entry["cause"]), str(entry.get("place") or ""), tuple(_evidence(piece) for piece in pieces))
    return check(finding)


def _evidence(piece: Any) -> Evidence:
    kind = next((kind for kind in ("metric", TRACE, LOG) if isinstance(piece, dict) and kind in piece), "")
    if not kind:
        raise InputError(f"this is not evidence: {str(piece)[:80]}", fix="name a metric, a trace or a log")
    if kind == "metric":
        value, at = piece.get("value"), piece.get("at")
        if not isinstance(value, int | float | None) or not isinstance(at, int | float):
            raise InputError("a metric needs its value, and at: the Unix time of the query", fix="add both")
        return Metric(str(piece[kind]), None if value is None else float(value), float(at))
    shows = piece.get("shows") or {}
    if not isinstance(shows, dict):
        raise InputError(f"what the {kind} shows is not a mapping", fix="write shows: {flags: UH}")
    return Row(kind, str(piece[kind]), shows)
