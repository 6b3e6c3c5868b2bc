"""What a run would do; nothing in this module changes anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stackbook.app import checks, cluster_rights, preflight, proving, run_parameters
from stackbook.cluster.kubeconfig import existing
from stackbook.config import chapters, namespaces
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.core.errors import StackbookError
from stackbook.lab import reading
from stackbook.lab.lab import Lab


def plan(
    profile: str = "embedded",
    *,
    first: str = "",
    last: str = "",
    only: tuple[str, ...] = (),
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """One line for each chapter; below it, what is proved, what would run, and what would be fetched.

    Raises:
        InputError: for the same reasons as a run.
    """
    chosen = chapters.choose(first=first, last=last, only=only)
    overrides, given = run_parameters.split_parameters(parameters or {}, chosen)
    loaded = Profile.load(profile, overrides=overrides)
    loaded.ca_file()  # refused now if it is not there
    if loaded.target == "cluster":
        namespaces.use(loaded.namespaces)
        yield from _cluster(loaded, chosen)
    for chapter in chosen:
        schema = CHAPTER_PARAMETERS.get(chapter.id, ChapterParameters)
        if reason := reading.only_read(loaded, chapter):
            yield f"{chapter.id}: would only be read: {reason}"
            continue
        values = run_parameters.chapter_values(chapter, loaded, given)
        lab = Lab(chapter, loaded, validate(schema, values, where=chapter.id))
        if (evidence := proving.proved(loaded, chapter, values)) is not None:
            yield f"{chapter.id}: nothing to do: {evidence}"
            continue
        left_out = reading.STEPS.get(chapter.id, {}) if loaded.target == "cluster" else {}
        names = [step for step in steps(chapter) if step not in left_out]
        yield f"{chapter.id}: would run: {', '.join(names) or 'its cells'}"
        if left_out:
            yield f"  would only read: {', '.join(left_out)}"
        for line in _missing(lab):
            yield f"  {line}"


def _cluster(profile: Profile, chosen: Sequence[chapters.Chapter]) -> Iterator[str]:
    """Which cluster it is, and what a run would make there.

    Raises:
        HostUnfit: the user cannot run these chapters there.
    """
    numbers = [chapter.number for chapter in chosen]
    preflight.demand(profile, numbers)
    found = existing(profile.kubeconfig, profile.context)
    yield f"cluster: server {found.server}, context {found.context}, user {found.user}"
    for name in cluster_rights.used(profile.namespaces, numbers):
        made = cluster_rights.quotas(profile.namespaces)[name].makes
        yield f"  would create in namespace {name}: {made}"
    yield "  would create nothing else in this cluster, and change nothing outside these namespaces"


def steps(chapter: chapters.Chapter) -> list[str]:
    """The ids of the steps in a chapter's notebook."""
    import re

    book = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code")
    return re.findall(r"lab\.step\(\s*\"([^\"]+)\"", code)


def _missing(lab: Lab) -> Iterator[str]:
    for check in checks.of(lab.chapter.id):
        try:
            check.prove(lab)
        except StackbookError as error:
            yield f"does not hold yet: {check.claim} ({str(error).splitlines()[0][:120]})"
    wanted = {name.removeprefix("bundle:") for name in lab.images.components(lab.chapter.artifacts)}
    for entry in lab.artifacts.status():
        if entry.name in wanted and entry.state != "cached":
            yield f"would fetch {entry.name} {entry.version} (about {entry.estimate:.0f} s)"
