"""The lab's components by name: from the cache, or made by this or another process.

artifacts = Resolver.open(source="auto")
artifacts.path("kubectl")                  # a Path to run
artifacts.bundle("control-plane").archive  # an OCI archive for `ctr -n k8s.io images import`
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts.builder import Maker
from stackbook.artifacts.catalogue import Catalogue
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.downloads import published
from stackbook.artifacts.lanes import Lanes
from stackbook.artifacts.sources import Release
from stackbook.artifacts.status import ArtifactStatus, statuses
from stackbook.artifacts.store import Entry, Store
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core import paths
from stackbook.core.errors import ArtifactUnavailable, InputError
from stackbook.core.progress import ConsoleReport, Progress, Report

SOURCES = ("auto", "release", "registry")
_SHOW_EVERY = 5.0


@dataclass(frozen=True)
class ImageRef:
    """An image that stackbook built: its full name, and an OCI archive that contains it."""

    reference: str
    archive: Path


@dataclass(frozen=True)
class Bundle:
    """Several images in one OCI archive."""

    name: str
    archive: Path
    references: tuple[str, ...]


class Resolver:
    """Finds components of the catalogue in the cache, or makes them; create one with `open`."""

    def __init__(self, maker: Maker, waited: Callable[[Sequence[str], float], None] | None = None) -> None:
        self.maker = maker
        self._waited = waited or (lambda _names, _seconds: None)
        self.catalogue: Catalogue = maker.catalogue
        self.store: Store = maker.store

    @classmethod
    def open(
        cls, source: str = "auto", progress: Callable[[Any], object] | None = None, *,
        versions: Mapping[str, str] | None = None, cache: Path | None = None, verify: bool = False, run: Spawn = spawn,
        urgent: bool = True, waited: Callable[[Sequence[str], float], None] | None = None, strict: bool = False,
    ) -> Resolver:  # fmt: skip
        """The resolver of this checkout and this user's cache.

        Args:
            source: `auto` takes the first source that works; `release` and `registry` force one for components with both.
            progress: gets `Progress` objects (`str()` of one is a line): notes, ends, and at most one more per job every 5
                seconds.
            versions: versions that replace the catalogue's, by component.
            cache: the cache folder; None for the user's.
            verify: compare full digests of cached artifacts, not only sizes and times.
            run: starts child processes.
            urgent: whether somebody waits for the components; such builds go before prefetching.
            waited: takes the names that were not in the cache, and the seconds until they were.
            strict: only pinned checksums count.

        Raises:
            InputError: the source, a component or a version is unknown.
        """
        if source not in SOURCES:
            raise InputError(f"there is no source {source!r}", fix=f"one of: {', '.join(SOURCES)}")
        report = _thinned(progress)
        catalogue = load(versions=versions, strict=strict)
        store = Store(cache or paths.cache(), say=lambda text: report(Progress("cache", "note", message=text)))
        return cls(Maker(catalogue, store, source, report, verify, run=run, urgent=urgent), waited)

    def path(self, name: str) -> Path:
        """The path of the file or folder `name`, which is made if necessary; see `Maker.file` for errors."""
        artifact = self.catalogue.artifact(name)
        if entry := self.maker.cached(artifact):
            return self.store.path(entry)
        self.ensure([f"file:{artifact.name}"])
        return self.store.path(self.maker.file(artifact.name))

    def at_hand(self, name: str) -> Path | None:
        """The path of the file or folder `name` if it is in the cache; otherwise None, and nothing is made."""
        entry = self.maker.cached(self.catalogue.artifact(name))
        return self.store.path(entry) if entry else None

    def digest(self, name: str) -> str:
        """The SHA-256 of the file `name`, which is made if necessary."""
        self.path(name)
        return self.maker.file(name).digest

    def version(self, name: str) -> str:
        """The version of a component, artifact or image in its project's notation, without a leading v."""
        return self.catalogue.version(name)

    def image(self, name: str) -> ImageRef:
        """One image in its own archive."""
        image = self.catalogue.image(name)
        self.ensure([f"image:{name}"])
        return ImageRef(image.reference, self.store.path(self._archive("image", name)))

    def bundle(self, name: str) -> Bundle:
        """Several images in one archive; shared layers are in it once."""
        references = tuple(self.catalogue.image(member).reference for member in self.catalogue.bundle(name))
        self.ensure([f"bundle:{name}"])
        return Bundle(name, self.store.path(self._archive("bundle", name)), references)

    def demand_versions(self) -> None:
        """Refuse versions other than the catalogue's that are neither in the cache nor available from their project.

        Raises:
            InputError: a version is not available here; the message gives the reason.
        """
        for component in sorted(self.catalogue.overridden):
            version, pinned = self.catalogue.versions[component], self.catalogue.pinned[component]
            if reason := self._why_no_release(component, version):
                name = component.replace("-", "_")
                fix = f'set {name}_version: "{pinned}", which is built here from Go modules'
                raise InputError(f"{component} {version} is not available: {reason}", fix=fix)

    def _why_no_release(self, component: str, version: str) -> str:
        """Why the missing files of a component's version cannot be downloaded; empty if one request shows that they can."""
        missing = [a for a in self.catalogue.artifacts.values() if a.version == version and not self.maker.cached(a)]
        for artifact in missing:
            release = next((s for s in artifact.sources if isinstance(s, Release)), None)
            if release is None:
                continue  # it belongs to another component with the same version
            if self.maker.source == "registry":
                return f"source: registry builds {component} {self.catalogue.pinned[component]} alone"
            if reason := self.maker.probe.why_not(release.url):
                return reason
            if not release.sha256:
                try:
                    published(release.published)
                except ArtifactUnavailable as error:
                    return error.message
                return ""  # the project has this version
        return ""

    def components(self, names: Iterable[str]) -> list[dict[str, str]]:
        """The cached files of these components, for a run's record: name, version, SHA-256 and `Entry.source`."""
        artifacts = [self.catalogue.artifact(name) for name in self.catalogue.parts(names)]
        entries = [(artifact, self.maker.cached(artifact)) for artifact in artifacts]
        return [
            {"name": artifact.name, "version": entry.version, "sha256": entry.digest, "source": entry.source}
            for artifact, entry in entries
            if entry
        ]

    def status(self) -> list[ArtifactStatus]:
        """The state of all files, then of all bundles, in the catalogue's order."""
        return statuses(self.maker)

    def ensure(self, names: Iterable[str]) -> None:
        """Make sure that all of `names` are cached.

        Go builds run in turn, downloads at the same time, and archives as soon as their parts are ready.

        Args:
            names: names of files, bundles or images; a prefix `file:`, `bundle:` or `image:` says which.

        Raises:
            InputError: a name is unknown; nothing was started.
            StackbookError: the first failure, after all other work has ended.
            Cancelled, KeyboardInterrupt: interrupted; finished work is kept, and the next call continues from there.
        """
        wanted = [self.catalogue.resolve(name) for name in names]
        missing = [name for kind, name in wanted if not self._cached(kind, name)]
        start = time.monotonic()
        Lanes(self.maker).run(wanted)
        if missing:
            self._waited(missing, time.monotonic() - start)

    def _cached(self, kind: str, name: str) -> bool:
        if kind == "file":
            return self.maker.cached(self.catalogue.artifact(name)) is not None
        return self.maker.archive_cached(f"{kind}:{name}", self.catalogue.members(kind, name)) is not None

    def _archive(self, kind: str, name: str) -> Entry:
        return self.maker.archive(f"{kind}:{name}", self.catalogue.members(kind, name))


def fetch(
    names: Iterable[str] = (), source: str = "auto", progress: Callable[[Any], object] | None = None, *,
    versions: Mapping[str, str] | None = None, strict: bool = False,
) -> None:  # fmt: skip
    """Get the named components, or all that a lab needs; `stackbook fetch` calls this.

    Raises:
        InputError: a name, the source or a version is unknown.
        ArtifactError: a component cannot be obtained.
    """
    resolver = Resolver.open(source=source, progress=progress, versions=versions, urgent=False, strict=strict)
    resolver.ensure(tuple(names) or resolver.catalogue.default_names())


def _thinned(progress: Callable[[Any], object] | None) -> Report:
    """A report that passes on notes and ends, and at most one other moment per job every few seconds."""
    if progress is None:
        return lambda _: None
    if isinstance(progress, ConsoleReport):
        return progress
    shown: dict[str, float] = {}
    guard = threading.Lock()

    def report(moment: Progress) -> None:
        now = time.monotonic()
        with guard:
            if moment.phase not in ("note", "done") and now - shown.get(moment.job, -_SHOW_EVERY) < _SHOW_EVERY:
                return
            shown[moment.job] = now
        progress(moment)

    return report
