"""The state of each component of the catalogue: cached, being made, or missing."""

from __future__ import annotations

from dataclasses import dataclass

from stackbook.artifacts.builder import Maker
from stackbook.artifacts.catalogue import Artifact
from stackbook.artifacts.sources import Build


@dataclass(frozen=True)
class ArtifactStatus:
    """The state of one artifact or bundle.

    Attributes:
        name: its name in the catalogue.
        version: the version of its component.
        state: `cached`, `building` (a process is making it) or `missing`.
        size: in bytes; an estimate if it is missing.
        source: the source of a cached one; empty if it is missing.
        estimate: how many seconds it will probably take; 0 if it is cached.
        chapter: the first chapter that needs it.
    """

    name: str
    version: str
    state: str
    size: int
    source: str
    estimate: float
    chapter: str


def statuses(maker: Maker) -> list[ArtifactStatus]:
    """The state of all files, then of all bundles, in the catalogue's order."""
    busy = _busy(maker)
    found = [_of_file(maker, artifact, busy) for artifact in maker.catalogue.artifacts.values()]
    return found + [_of_bundle(maker, name, busy) for name in maker.catalogue.bundles]


def _busy(maker: Maker) -> set[str]:
    """The jobs on which a process works now."""
    names = [*(f"go:{name}" for name in maker.catalogue.groups), *maker.catalogue.artifacts]
    names += [f"bundle:{name}" for name in maker.catalogue.bundles]
    holders = [maker.store.lock(name).holder() for name in names]
    return {str(holder.get("job", "")) for holder in holders if holder}


def _of_file(maker: Maker, artifact: Artifact, busy: set[str]) -> ArtifactStatus:
    entry = maker.cached(artifact)
    jobs = {artifact.name, *(f"go:{source.group}" for source in artifact.sources if isinstance(source, Build))}
    state = "cached" if entry else "building" if jobs & busy else "missing"
    size, source = (entry.size, entry.source) if entry else (artifact.size, "")
    estimate = 0.0 if entry else maker.estimate(artifact.name)
    return ArtifactStatus(artifact.name, artifact.version, state, size, source, estimate, artifact.chapter)


def _of_bundle(maker: Maker, name: str, busy: set[str]) -> ArtifactStatus:
    members = maker.catalogue.members("bundle", name)
    entry = maker.archive_cached(f"bundle:{name}", members)
    parts = {file: maker.catalogue.artifact(file) for image in members for file, _ in image.files}
    state = "cached" if entry else "building" if f"bundle:{name}" in busy else "missing"
    size = entry.size if entry else sum(part.size for part in parts.values())
    estimate = 0.0 if entry else maker.store.estimate(f"bundle:{name}", 8.0)
    chapter = min((part.chapter for part in parts.values()), default="05")
    version = maker.catalogue.version(f"bundle:{name}")
    return ArtifactStatus(name, version, state, size, entry.source if entry else "", estimate, chapter)
