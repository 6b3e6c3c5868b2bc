"""The page docs/errata.md: what the guide says, what holds today, and where that is proved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from stackbook.config.ledger.coverage import HOW, Coverage
from stackbook.config.ledger.entries import Entry

HEAD = """# What the guide says, and what holds today

Every command, file and claim of the guide was checked; this page lists those that are wrong, outdated or unclear.
It is generated from the ledger and from the notebooks that prove it: change those, then run `{command}`.

{counts}
"""
COMMAND = "stackbook coverage --errata > docs/errata.md"


def errata(covered: Coverage) -> str:
    """The page in Markdown, in the guide's order; the same ledger and notebooks always give the same page."""
    concerned = [entry for entry in covered.entries.values() if entry.verdict != "ok"]
    total = len(covered.entries)
    counts = "".join(
        f"- **{verdict}**: {sum(e.verdict == verdict for e in concerned)} of {total}\n"
        for verdict in ("wrong", "outdated", "unclear")
    )
    parts = [HEAD.format(command=COMMAND, counts=counts)]
    ordered = sorted(concerned, key=lambda entry: _numbers(entry.chapter))
    for chapter, entries in groupby(ordered, key=lambda entry: entry.chapter):
        parts.append(f"\n## {chapter}\n" + "".join(block for entry in entries for block in _block(entry, covered)))
    return "".join(parts)


def _numbers(chapter: str) -> list[int]:
    return [int(part) for part in chapter.split(".")]


def _block(entry: Entry, covered: Coverage) -> Iterator[str]:
    """One entry: what the guide says, the correction, the check, the proof."""
    said = _code(entry.text) if entry.kind == "command" else _plain(entry.text)
    yield f"\n**{entry.id}** ({entry.verdict}) {said}\n\n"
    if entry.correction:
        yield f"- Today: {_plain(entry.correction)}\n"
    yield f"- Check: {_plain(entry.how_to_check)}\n"
    proofs = covered.proofs.get(entry.id, ())
    places = dict.fromkeys((p.notebook, p.section, HOW[p.how], p.why) for p in proofs)
    for notebook, section, how, why in places:
        reason = f" ({_plain(why)})" if why else ""
        link = f"[{notebook.removesuffix('.ipynb')}](../notebooks/{notebook})"
        yield f"- {how.capitalize()}{reason}: {link}, {_plain(section)}\n"
    if not places:
        yield "- Not covered yet.\n"


def _code(text: str) -> str:
    """Text as code; more backticks around it than in it (CommonMark 6.1)."""
    line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _plain(text: str) -> str:
    """Text on one line; everything that Markdown would read as markup is escaped, except code in backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") and part.endswith("`") else _escape(part) for part in parts)


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", text)
