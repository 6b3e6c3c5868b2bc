"""The parameters of a run: which belong to the profile, which to a chapter, and what they are together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.config import chapters
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean


def split_parameters(
    given: Mapping[str, Any], chosen: Sequence[chapters.Chapter]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides for the profile, and parameters of the chosen chapters.

    Raises:
        InputError: a name is not a parameter of the profile or of a chosen chapter.
    """
    lab_names = set(Profile.model_fields) - {"chapters", "name"}
    chapter_names = {n for c in chapters.ALL for n in CHAPTER_PARAMETERS.get(c.id, ChapterParameters).model_fields}
    for name in given:
        if name not in lab_names | chapter_names:
            raise InputError(f"unknown parameter {name!r}", fix=did_you_mean(name, sorted(lab_names | chapter_names)))
    of_chosen = {n for c in chosen for n in CHAPTER_PARAMETERS.get(c.id, ChapterParameters).model_fields}
    for name in given:
        if name in chapter_names - of_chosen:
            owner = next(
                c.id for c in chapters.ALL if name in CHAPTER_PARAMETERS.get(c.id, ChapterParameters).model_fields
            )
            raise InputError(
                f"parameter {name!r} belongs to {owner}, which is not part of this run", fix=f"add {owner} to the run"
            )
    return (
        {k: v for k, v in given.items() if k in lab_names},
        {k: v for k, v in given.items() if k in chapter_names},
    )


def chapter_values(chapter: chapters.Chapter, profile: Profile, given: Mapping[str, Any]) -> dict[str, Any]:
    """A chapter's parameters: the profile's, overridden by the given ones.

    Raises:
        InputError: one of them is unknown or wrong.
    """
    schema = CHAPTER_PARAMETERS.get(chapter.id, ChapterParameters)
    mine = {k: v for k, v in given.items() if k in schema.model_fields}
    values = {**profile.chapters.get(chapter.id, profile.chapters.get(chapter.name, {})), **mine}
    validate(schema, values, where=f"chapter {chapter.id}")
    return values
