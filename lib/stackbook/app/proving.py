"""Whether a chapter need not run: it passed on this lab before, and what it leaves is still there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stackbook.app import checks
from stackbook.config import chapters
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.lab import proofs
from stackbook.lab.lab import Lab


def proved(profile: Profile, chapter: chapters.Chapter, values: Mapping[str, Any]) -> str | None:
    """Why this chapter need not run: it passed on this lab with these parameters, and its postconditions still hold.

    None if it has to run. A chapter that leaves nothing behind is proved if it has passed on this lab.
    """
    if not chapter.batch:
        return None
    lab = Lab(
        chapter, profile, validate(CHAPTER_PARAMETERS.get(chapter.id, ChapterParameters), values, where=chapter.id)
    )
    known = proved_before(profile).get(chapter.id)
    try:
        if known is None or known != proofs.key(lab):
            return None
    except (OSError, ValueError, LookupError, TypeError):  # the notebook is gone; executing it reports that
        return None
    found = []
    try:
        for check in checks.of(chapter.id):
            found.append(f"{check.claim}: {check.prove(lab)}")
    except StackbookError as error:
        lab.record.append("proof", chapter=chapter.id, holds=False, reason=str(error))
        return None
    return "; ".join(found) or "passed on this lab before"


def proved_before(profile: Profile) -> dict[str, str]:
    """The chapters that passed on the lab, with the keys of their proofs."""
    path = paths.states() / profile.lab / "proved.json"  # reading it makes no folder
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def remember(profile: Profile, chapter: chapters.Chapter, key: str) -> None:
    """Note that a chapter passed on the lab, with the key of its proof."""
    path = paths.state(profile.lab) / "proved.json"
    data = {**proved_before(profile), chapter.id: key}
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    temporary.replace(path)
