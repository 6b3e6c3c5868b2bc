"""Finding the snapshot that leaves a run the least to do: the one in which most of the run's chapters are proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.app import proving, run_parameters
from stackbook.app.snapshots import manifest
from stackbook.app.snapshots.manifest import Manifest
from stackbook.app.snapshots.store import Store
from stackbook.config import chapters
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.core.errors import InputError
from stackbook.lab import proofs
from stackbook.lab.lab import Lab
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded


def choose(
    profile: Profile, *, first: str, last: str, only: Sequence[str], parameters: Mapping[str, Any], say: Say
) -> str:  # fmt: skip
    """The name of the nearest snapshot; empty if the lab itself is as near, or if no snapshot has any of the chapters.

    Args:
        profile: the lab's profile.
        first, last, only: the choice of chapters; see `chapters.choose`.
        parameters: overrides, like a run's.
        say: takes one line.
    """
    chosen = chapters.choose(first=first, last=last, only=tuple(only))
    overrides, given = run_parameters.split_parameters(parameters, chosen)
    if overrides:
        profile = Profile.model_validate(profile.model_dump() | dict(overrides))
    upto = chapters.ALL.index(chosen[-1]) + 1
    wanted = [chapter for chapter in chapters.ALL[:upto] if chapter.batch]

    def proved(known: Mapping[str, str], instance: str) -> int:
        """How many of the wanted chapters these proofs cover."""
        count = 0
        for chapter in wanted:
            schema = CHAPTER_PARAMETERS.get(chapter.id, ChapterParameters)
            values = run_parameters.chapter_values(chapter, profile, given if chapter in chosen else {})
            lab = Lab(chapter, profile, validate(schema, values, where=chapter.id))
            count += known.get(chapter.id) == proofs.key(lab, instance=instance)
        return count

    here = proved(proving.proved_before(profile), Lab(chosen[0], profile, ChapterParameters()).instance())
    if not Embedded(profile).containers():
        here = 0
    found = [(proved(each.proved, each.instance), -len(each.proved), each.time, each.name) for each in _usable(profile)]
    best = max(found, default=(0, 0, "", ""))
    if best[0] <= here:
        say("no snapshot has more proved chapters than the lab itself, so nothing is restored")
        return ""
    say(f"the nearest snapshot is {best[3]!r}: it has {best[0]} of {len(wanted)} chapters proved")
    return best[3]


def _usable(profile: Profile) -> list[Manifest]:
    store, found = Store(profile.lab), []
    for name in store.names():
        try:
            each = manifest.read(store.path(name))
            each.demand_fitting(profile)
        except InputError:
            continue
        found.append(each)
    return found
