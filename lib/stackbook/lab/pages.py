"""What a chapter's page says about the guide, from the ledger ids in the metadata of its cells."""

from __future__ import annotations

import json

from stackbook.config.chapters import Chapter


def errata(chapter: Chapter) -> list[dict[str, str]]:
    """A row for each id in the chapter's cells for which the guide is wrong or outdated."""
    from stackbook.config.ledger import entries

    known = entries.load()
    book = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    said = [c["metadata"].get("stackbook", []) for c in book["cells"]]
    ids = {i for item in said for part in (item if isinstance(item, list) else [item]) for i in part["ids"]}
    return [
        {"id": e.id, "the guide": e.text, "verdict": e.verdict, "today": e.correction}
        for e in known.values()
        if e.id in ids and e.verdict != "ok"
    ]
