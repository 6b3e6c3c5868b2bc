"""Obtain one artifact from one source that is not a Go build: a download, a package, pages, a source package, or a root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts import downloads, npm_packages, package_registries, page_builds, source_builds
from stackbook.artifacts.catalogue import Artifact
from stackbook.artifacts.jars import jars
from stackbook.artifacts.maven import maven
from stackbook.artifacts.sources import Debian, DebianSource, Jars, Maven, Npm, Pages, Release, Source, Wheel
from stackbook.core.progress import Progress, Report

if TYPE_CHECKING:
    from stackbook.artifacts.builder import Maker


def obtain(
    maker: Maker, source: Source, key: str, artifact: Artifact, folder: Path, report: Report, estimate: float,
    tools: Mapping[str, Path],
) -> Path:  # fmt: skip
    """Obtain the artifact in `folder`, verified; returns the file or folder.

    Args:
        maker: its store, its way to start child processes, and the event that cancels its work.
        source: one of the artifact's sources.
        key: the key of its recipe.
        artifact: the artifact.
        folder: a temporary folder on the cache's file system.
        report: gets progress.
        estimate: how many seconds it will probably take.
        tools: the folders of the other artifacts that the source needs.

    Raises:
        ArtifactError: the source does not have it, or has something else.
        InputError: a program that the source needs is not installed.
    """
    name, cancel, run, root = artifact.name, maker.cancel, maker.run, maker.store.root
    log = root / "logs" / f"{name}.log"
    log.unlink(missing_ok=True)
    partial = root / "partial" / (key or name)
    if isinstance(source, Release):
        return _release(source, artifact, partial, report, maker)
    if isinstance(source, Jars):
        return jars(
            source, folder=folder, partial_folder=partial, repository=root / "build" / "maven", job=name, report=report,
            log=log, cancel=cancel, run=run,
        )  # fmt: skip
    if isinstance(source, Maven):
        return maven(
            source, partial=partial, folder=folder, repository=root / "build" / "maven", job=name, report=report,
            log=log, cancel=cancel, run=run,
        )  # fmt: skip
    if isinstance(source, Wheel):
        return package_registries.wheel(
            source, version=artifact.version, folder=folder, job=name, report=report, log=log, estimate=estimate,
            cancel=cancel, run=run,
        )  # fmt: skip
    if isinstance(source, Npm):
        return npm_packages.package(
            source, version=artifact.version, folder=folder, npm_cache=root / "build" / "npm" / name, job=name,
            report=report, log=log, cancel=cancel, run=run, **tools,
        )  # fmt: skip
    if isinstance(source, Pages):
        programs = page_builds.Tools(tools["go"], tools["node"], tools[source.manager])
        return page_builds.build(
            source, maker.catalogue.groups[source.group], programs, folder=folder, cache=root, job=name,
            report=report, log=log, estimate=estimate, cancel=cancel, run=run, background=not maker.urgent,
        )  # fmt: skip
    if isinstance(source, DebianSource):
        return source_builds.build(
            source, folder=folder, job=name, report=report, log=log, estimate=estimate, cancel=cancel, run=run,
            background=not maker.urgent,
        )  # fmt: skip
    assert isinstance(source, Debian)
    return package_registries.debian_rootfs(
        source, folder=folder, job=name, report=report, log=log, estimate=estimate, cancel=cancel, run=run
    )


def _release(source: Release, artifact: Artifact, partial: Path, report: Report, maker: Maker) -> Path:
    sha256 = source.sha256
    if not sha256 and source.published:
        sha256 = downloads.published(source.published)
        text = f"no checksum of {artifact.version} is pinned: compared with {source.published}"
        report(Progress(artifact.name, "note", message=text))
    return downloads.download(
        source.url, sha256=sha256, partial=partial, job=artifact.name, report=report, cancel=maker.cancel
    )
