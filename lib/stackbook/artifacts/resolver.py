"""The lab's components by name: from the cache, or made by this or another process.

artifacts = Resolver.open(source="auto")
artifacts.path("kubectl")                  # a Path to run
artifacts.bundle("control-plane").archive  # an OCI archive for `ctr -n k8s.io images import`
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts.build_queue import free_memory, places
from stackbook.artifacts.builder import Maker
from stackbook.artifacts.catalogue import Artifact, Build, Catalogue, Image, Release
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.downloads import published
from stackbook.artifacts.store import Entry, Store
from stackbook.artifacts.subprocesses import Cancelled, Spawn, spawn
from stackbook.core import paths
from stackbook.core.errors import ArtifactUnavailable, InputError, StackbookError
from stackbook.core.progress import ConsoleReport, Progress, Report

SOURCES = ("auto", "release", "registry")
_SHOW_EVERY = 5.0


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

    def digest(self, name: str) -> str:
        """The SHA-256 of the file `name`, which is made if necessary."""
        self.path(name)
        return self.maker.file(name).digest

    def version(self, name: str) -> str:
        """The version of a component, artifact or image in its project's notation, without a leading v."""
        if name in self.catalogue.versions:
            return self.catalogue.versions[name]
        kind, plain = self.catalogue.resolve(name)
        if kind == "file":
            return self.catalogue.artifact(plain).version
        image = self.catalogue.image(plain if kind == "image" else self.catalogue.bundle(plain)[0])
        return image.reference.rpartition(":")[2].removeprefix("v")

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
                raise InputError(f"{component} {version} cannot be had: {reason}", fix=fix)

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
        busy = self._busy()
        found = [self._file_status(artifact, busy) for artifact in self.catalogue.artifacts.values()]
        return found + [self._bundle_status(name, busy) for name in self.catalogue.bundles]

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
        _Round(self, self.maker).run(wanted)
        if missing:
            self._waited(missing, time.monotonic() - start)

    def _cached(self, kind: str, name: str) -> bool:
        if kind == "file":
            return self.maker.cached(self.catalogue.artifact(name)) is not None
        return self.maker.archive_cached(f"{kind}:{name}", self._members(kind, name)) is not None

    def _members(self, kind: str, name: str) -> list[Image]:
        members = self.catalogue.bundle(name) if kind == "bundle" else (name,)
        return [self.catalogue.image(member) for member in members]

    def _archive(self, kind: str, name: str) -> Entry:
        return self.maker.archive(f"{kind}:{name}", self._members(kind, name))

    def _busy(self) -> set[str]:
        """The jobs on which a process works now."""
        names = [*(f"go:{name}" for name in self.catalogue.groups), *self.catalogue.artifacts]
        names += [f"bundle:{name}" for name in self.catalogue.bundles]
        holders = [self.store.lock(name).holder() for name in names]
        return {str(holder.get("job", "")) for holder in holders if holder}

    def _file_status(self, artifact: Artifact, busy: set[str]) -> ArtifactStatus:
        entry = self.maker.cached(artifact)
        jobs = {artifact.name, *(f"go:{source.group}" for source in artifact.sources if isinstance(source, Build))}
        state = "cached" if entry else "building" if jobs & busy else "missing"
        size, source = (entry.size, entry.source) if entry else (artifact.size, "")
        estimate = 0.0 if entry else self.maker.estimate(artifact.name)
        return ArtifactStatus(artifact.name, artifact.version, state, size, source, estimate, artifact.chapter)

    def _bundle_status(self, name: str, busy: set[str]) -> ArtifactStatus:
        members = self._members("bundle", name)
        entry = self.maker.archive_cached(f"bundle:{name}", members)
        parts = {file: self.catalogue.artifact(file) for image in members for file, _ in image.files}
        state = "cached" if entry else "building" if f"bundle:{name}" in busy else "missing"
        size = entry.size if entry else sum(part.size for part in parts.values())
        estimate = 0.0 if entry else self.store.estimate(f"bundle:{name}", 8.0)
        chapter = min((part.chapter for part in parts.values()), default="05")
        version = self.version(f"bundle:{name}")
        return ArtifactStatus(name, version, state, size, entry.source if entry else "", estimate, chapter)


class _Round:
    """One call of `ensure`, with three lanes: compiling needs the processors, downloading the network, assembling both."""

    def __init__(self, resolver: Resolver, maker: Maker) -> None:
        self._resolver, self._maker = resolver, maker
        workers = {"build": places(os.cpu_count() or 1, free_memory()), "download": 3, "assemble": 1}
        self._lanes = {lane: ThreadPoolExecutor(count, lane) for lane, count in workers.items()}
        self._futures: dict[tuple[str, str], Future[Entry]] = {}

    def run(self, wanted: Iterable[tuple[str, str]]) -> None:
        self._maker.cancel.clear()
        failure: StackbookError | None = None
        try:
            for kind, name in wanted:
                self._want(kind, name)
            for future in list(self._futures.values()):
                try:
                    while not future.done():
                        threading.Event().wait(0.02)
                    future.result()
                except StackbookError as error:
                    failure = failure or error
        except BaseException:
            self._maker.cancel.set()
            raise
        finally:
            for lane in self._lanes.values():
                lane.shutdown(wait=True, cancel_futures=self._maker.cancel.is_set())
        if failure:
            raise failure

    def _want(self, kind: str, name: str) -> Future[Entry]:
        known = self._futures.get((kind, name))
        if known is not None:
            return known
        if kind == "file":
            future = self._lanes[self._lane(name)].submit(self._checked, lambda: self._maker.file(name))
        else:
            members = self._resolver._members(kind, name)
            parts = [file for image in members for file, _ in image.files]
            parts += self._resolver.catalogue.roots(members)
            needed = [self._want("file", part) for part in dict.fromkeys(parts)]
            future = self._lanes["assemble"].submit(self._checked, lambda: self._assembled(kind, name, needed))
        self._futures[kind, name] = future
        return future

    def _assembled(self, kind: str, name: str, needed: list[Future[Entry]]) -> Entry:
        for future in needed:
            future.result()
        return self._resolver._archive(kind, name)

    def _checked(self, work: Callable[[], Entry]) -> Entry:
        if self._maker.cancel.is_set():
            raise Cancelled
        return work()

    def _lane(self, name: str) -> str:
        recipes = self._maker.usable(self._maker.catalogue.artifact(name))
        return "build" if recipes and isinstance(recipes[0][0], Build) else "download"


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
