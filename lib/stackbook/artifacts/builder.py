"""Make artifacts from their recipes, under locks that other processes respect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stackbook.artifacts import (  # fmt: skip
    debian_layers,
    downloads,
    gobuild,
    image_layers,
    named_packages,
    obtaining,
    oci_archive,
    package_registries,
    page_builds,
    source_builds,
)
from stackbook.artifacts.build_queue import BuildQueue
from stackbook.artifacts.catalogue import Artifact, Catalogue, Image
from stackbook.artifacts.debian_layers import DebianRoot
from stackbook.artifacts.digests import key_of, sha256_of, source_digest
from stackbook.artifacts.sources import Build, Debian, DebianSource, Npm, Pages, Release, Source, Wheel
from stackbook.artifacts.store import Entry, Store
from stackbook.artifacts.subprocesses import Cancelled, Spawn, spawn
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, InputError
from stackbook.core.progress import Progress, Report

_OCI = "oci-1"


def source_word(source: Source) -> str:
    """How the store names a source: `release`, `published` (a release without a pinned checksum) or `registry`."""
    if not isinstance(source, Release):
        return "registry"
    return "release" if source.sha256 else "published"


@dataclass
class Maker:
    """Makes artifacts of the catalogue and adds them to the store.

    Attributes:
        catalogue: the catalogue.
        store: the store to which artifacts are added.
        source: `auto`, `release` or `registry`.
        report: gets progress and notes.
        verify: compare full digests of cached artifacts.
        cancel: an event that ends the work when it is set.
        run: starts child processes.
        urgent: whether somebody waits for the artifacts; otherwise they are prefetched.
    """

    catalogue: Catalogue
    store: Store
    source: str = "auto"
    report: Report = lambda _: None
    verify: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    run: Spawn = spawn
    urgent: bool = True
    probe: downloads.Probe = field(default_factory=downloads.Probe)
    _said: set[str] = field(default_factory=set)
    _digests: dict[Path, str] = field(default_factory=dict)
    _roots: dict[str, DebianRoot] = field(default_factory=dict)

    @property
    def queue(self) -> BuildQueue:
        """The queue of the builds."""
        return BuildQueue(self.store.root / "locks")

    def recipes(self, artifact: Artifact) -> list[tuple[Source, str]]:
        """The sources that may be used, in order, each with its key in the store."""
        found = []
        has_release = any(isinstance(source, Release) for source in artifact.sources)
        for source in artifact.sources:
            if isinstance(source, Release) and self.source == "registry":
                continue
            if not isinstance(source, Release) and self.source == "release" and has_release:
                continue
            found.append((source, self._key(source, artifact)))
        return found

    def usable(self, artifact: Artifact) -> list[tuple[Source, str]]:
        """The recipes to try; `auto` leaves out releases without a checksum, and releases whose host does not answer."""
        recipes = self.recipes(artifact)
        if self.source != "auto":
            return recipes
        found = []
        for source, key in recipes:
            if isinstance(source, Release) and len(recipes) > 1 and not (source.checked and self._answers(source.url)):
                continue
            found.append((source, key))
        return found

    def cached(self, artifact: Artifact) -> Entry | None:
        """The entry of the artifact in the store, from any source that may be used; None if there is none."""
        keys = [key for _, key in self.recipes(artifact) if key]
        return self.store.find(artifact.name, keys, verify=self.verify)

    def file(self, name: str) -> Entry:
        """The artifact from the cache, otherwise from its sources in order.

        Raises:
            ArtifactError: no source has it; the message gives the reason for each.
        """
        artifact = self.catalogue.artifact(name)
        if entry := self.cached(artifact):
            return entry
        reasons: list[ArtifactError] = []
        usable = self.usable(artifact)
        for source, key in usable:
            try:
                return self._from(source, key, artifact)
            except InputError:
                raise
            except ArtifactError as error:
                reasons.append(error)
                if source is not usable[-1][0]:
                    self.report(Progress(name, "note", message=f"{error.message}; trying the next source"))
        if len(reasons) == 1:
            raise reasons[0]
        text = "; ".join(error.message for error in reasons) or "no source"
        raise ArtifactUnavailable(f"{name} {artifact.version}: {text}", fix=reasons[-1].fix if reasons else "")

    def estimate(self, name: str) -> float:
        """How many seconds it will probably take to get the artifact; for a Go build, the time of its whole group."""
        artifact = self.catalogue.artifact(name)
        source, _ = self.recipes(artifact)[-1] if self.recipes(artifact) else (None, "")
        if isinstance(source, Build):
            return self.store.estimate(f"go:{source.group}", self.catalogue.groups[source.group].seconds)
        return self.store.estimate(name, artifact.seconds or artifact.size / 5e6)

    def archive(self, name: str, members: Sequence[Image]) -> Entry:
        """An OCI archive with the images `members`; `name` is the name of its index entry (`bundle:…` or `image:…`)."""
        files = {file: self.file(file) for image in members for file, _ in image.files}
        roots = {name: self.file(name) for name in self.catalogue.roots(members)}
        key = self.archive_key(members, files, roots)
        if entry := self.store.find(name, [key], verify=self.verify):
            return entry
        found = self._made_elsewhere(partial(self.store.find, name, [key]))
        with self.store.lock(name).job(name, report=self.report, deadline=900, found=found) as report:
            if entry := found():
                return entry
            start = time.monotonic()
            report(Progress(name, "assemble", remaining=self.store.estimate(name, 8)))
            with self.store.temporary("oci") as folder:
                target = folder / "archive.tar"
                digest = image_layers.assemble(
                    members,
                    target,
                    bases=self.catalogue.bases,
                    files={file: self.store.path(entry) for file, entry in files.items()},
                    root=self._root,
                )
                seconds = time.monotonic() - start
                version = members[0].reference.rpartition(":")[2]
                return self._added(
                    self.store.add_file(
                        target, name=name, key=key, source="assembled", version=version, seconds=seconds,
                        kind="archive", digest=digest,
                    )
                )  # fmt: skip

    def archive_cached(self, name: str, members: Sequence[Image]) -> Entry | None:
        """The archive if it and all its parts are cached, else None."""
        files: dict[str, Entry] = {}
        for image in members:
            for file, _ in image.files:
                entry = self.cached(self.catalogue.artifact(file))
                if entry is None:
                    return None
                files[file] = entry
        roots: dict[str, Entry] = {}
        for root in self.catalogue.roots(members):
            entry = self.cached(self.catalogue.artifact(root))
            if entry is None:
                return None
            roots[root] = entry
        return self.store.find(name, [self.archive_key(members, files, roots)], verify=self.verify)

    def archive_key(self, members: Sequence[Image], files: dict[str, Entry], roots: dict[str, Entry]) -> str:
        """The key of an archive: a hash of the images' definitions, the digests of their parts, and the code that writes it."""
        chosen = self.catalogue.key_bases(members)
        modules = [image_layers, oci_archive, debian_layers]
        if any(base.own_key for base in chosen.values()):
            modules.append(named_packages)
        code = sorted(self._digest(Path(module.__file__ or "")) for module in modules)
        parts = {name: entry.digest for name, entry in files.items()}
        bases = {name: repr(base) for name, base in chosen.items()}
        below = {name: entry.digest for name, entry in roots.items()}
        return key_of(_OCI, [repr(image) for image in members], parts, bases, below, code)

    def _made_elsewhere(self, find: Callable[[], Entry | None]) -> Callable[[], Entry | None]:
        """Look for an artifact that another process makes, as long as nobody interrupts the waiting."""

        def look() -> Entry | None:
            if self.cancel.is_set():
                raise Cancelled
            return find()

        return look

    def _key(self, source: Source, artifact: Artifact) -> str:
        if isinstance(source, Release):
            return key_of("release", source.url, source.sha256 or "published") if source.checked else ""
        if isinstance(source, Build):
            group = self.catalogue.groups[source.group]
            go = self.catalogue.artifact("go").sources[0]
            assert isinstance(go, Wheel)
            return gobuild.recipe_key(group, source, go_sha256=go.sha256, sources=self._sources(group.folder))
        if isinstance(source, Debian):
            return key_of(package_registries.debian_recipe(source))
        if isinstance(source, DebianSource):
            return key_of(source_builds.recipe(source))
        if isinstance(source, Pages):
            tools = [repr(self.catalogue.artifact(tool).sources) for tool in ("node", source.manager)]
            return page_builds.recipe_key(source, self.catalogue.groups[source.group], tools)
        return key_of(type(source).__name__, repr(source), artifact.version)

    def _from(self, source: Source, key: str, artifact: Artifact) -> Entry:
        if isinstance(source, Build):
            return self._build(source, artifact)
        name = artifact.name
        estimate = self.store.estimate(name, artifact.seconds or 30)
        found = self._made_elsewhere(partial(self.store.find, name, [key] if key else []))
        deadline = 4 * estimate + 900
        alone = self.store.lock(name).job(name, report=self.report, deadline=deadline, found=found)
        tools: dict[str, Path] = {}
        if isinstance(source, Npm | Pages):
            tools = {tool: self.store.path(self.file(tool)) for tool in source.tools}
        if isinstance(source, Pages | DebianSource):
            alone = self.queue.turn(name, urgent=self.urgent, found=found, report=self.report, deadline=2 * 3600)
        with alone as report:
            if entry := found():
                return entry
            start = time.monotonic()
            with self.store.temporary("get") as folder:
                path = obtaining.obtain(self, source, key, artifact, folder, report, estimate, tools)
                seconds = time.monotonic() - start
                kind = source_word(source)
                add = {"name": name, "key": key, "source": kind, "version": artifact.version}
                if artifact.kind == "tree":
                    return self._added(self.store.add_tree(path, **add, seconds=seconds))
                return self._added(self.store.add_file(path, **add, seconds=seconds, kind=artifact.kind))

    def _build(self, source: Build, artifact: Artifact) -> Entry:
        """Build the artifact's whole group, except what is cached or comes as a release."""
        if self.catalogue.overridden and artifact.version not in self.catalogue.pinned.values():
            raise ArtifactUnavailable(
                f"{artifact.name} {artifact.version} is not what lib/toolchain builds",
                fix="use the catalogue's version",
            )
        goroot = self.store.path(self.file("go"))
        group = self.catalogue.groups[source.group]
        estimate = self.store.estimate(f"go:{group.name}", group.seconds)
        waiting = 4 * sum(g.seconds for g in self.catalogue.groups.values()) + 900
        job = f"go:{group.name}"
        found = self._made_elsewhere(partial(self.cached, artifact))
        with self.queue.turn(
            group.name, urgent=self.urgent, found=found, report=self.report, deadline=waiting
        ) as report:
            if isinstance(report.found, Entry):
                return report.found
            members = [item for item in self._members(group.name) if item is artifact or self._to_build(item)]
            builds = {item.name: build for item in members for build in item.sources if isinstance(build, Build)}
            log = self.store.root / "logs" / f"go-{group.name}.log"
            log.unlink(missing_ok=True)
            start = time.monotonic()
            with self.store.temporary("go") as folder:
                built = gobuild.build(
                    group, builds.values(), goroot=goroot, cache=self.store.root, out=folder / "out", log=log,
                    report=report, estimate=estimate, cancel=self.cancel, run=self.run, background=not self.urgent,
                )  # fmt: skip
                seconds = time.monotonic() - start
                if built.share > 0.5:  # otherwise Go's cache had most packages, and the time is not typical
                    self.store.record_seconds(job, seconds)
                made = {item.name: self._keep(item, builds[item.name], built.paths, seconds) for item in members}
            self.report(Progress(job, "done", message=f"{len(made)} built in {seconds:.0f} s"))
            return made[artifact.name]

    def _keep(self, item: Artifact, build: Build, paths: Mapping[Build, Path], seconds: float) -> Entry:
        key = self._key(build, item)
        path = paths[build]
        if item.kind == "tree":
            return self.store.add_tree(
                path, name=item.name, key=key, source="registry", version=item.version, seconds=seconds
            )
        return self.store.add_file(
            path, name=item.name, key=key, source="registry", version=item.version, seconds=seconds
        )

    def _members(self, group: str) -> list[Artifact]:
        found = self.catalogue.artifacts.values()
        return [item for item in found if any(isinstance(s, Build) and s.group == group for s in item.sources)]

    def _to_build(self, item: Artifact) -> bool:
        if self.cached(item):
            return False
        return isinstance(self.usable(item)[0][0], Build)

    def _answers(self, url: str) -> bool:
        """Whether the host of a release answers; reports once if it does not."""
        reason = self.probe.why_not(url)
        if reason and reason not in self._said:
            self._said.add(reason)
            self.report(Progress("release", "note", message=f"{reason}: package registries are used instead"))
        return not reason

    def _added(self, entry: Entry) -> Entry:
        self.store.record_seconds(entry.name, entry.seconds)
        message = f"{entry.version}, {entry.size / 1e6:.0f} MB, {entry.seconds:.0f} s"
        self.report(Progress(entry.name, "done", seconds=entry.seconds, message=message))
        return entry

    def _root(self, name: str) -> DebianRoot:
        if name not in self._roots:
            named = any(base.own_key for base in self.catalogue.bases.values() if base.root == name)
            kind = named_packages.NamedRoot if named else DebianRoot
            self._roots[name] = kind.read(self.store.path(self.file(name)))
        return self._roots[name]

    def _sources(self, folder: Path) -> str:
        if folder not in self._digests:
            self._digests[folder] = source_digest(folder)
        return self._digests[folder]

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = sha256_of(path)
        return self._digests[path]
