"""`stackbook bundle save` and `load`: everything that a profile needs in one file, for a host without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts import bundle_file, machine_releases
from stackbook.artifacts.bundle_file import Contents, Reader
from stackbook.artifacts.store import Entry
from stackbook.config import chapters
from stackbook.core import paths
from stackbook.core.errors import ArtifactError, InputError, StackbookError
from stackbook.lab.lab import Lab

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

_COMPILE = {"08-protobuf", "09-grpc"}  # the chapters that compile Go programs
_STEP = 256 << 20  # bytes between two progress lines
Say = Callable[[str], object]


def save(file: Path, profile: str, *, last: str = "", say: Say = print) -> Contents:
    """Write a bundle for a profile's chapters; first, it fetches and builds what is not in the cache.

    It contains the images that stackbook builds, because an air-gapped host has no registry to pull from.

    Args:
        file: the file to write.
        profile: name or path.
        last: the last chapter that the bundle must support; empty means all.
        say: prints a line.

    Raises:
        InputError: bad input, or no space; an existing file stays as it is.
        ArtifactError: a component cannot be obtained.
    """
    chosen = chapters.choose(last=last)
    lab = Lab.open("00-preflight", profile)
    target = file.absolute()
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"{file} cannot be written", fix="name a file in an existing folder")
    resolver = lab.artifacts
    # Without images: they are assembled from their files on the other host.
    names = resolver.catalogue.parts(name for chapter in chosen for name in chapter.artifacts)
    compiles = [chapter.id for chapter in chosen if chapter.id in _COMPILE]
    resolver.ensure([f"file:{name}" for name in names])
    names += _pages(resolver, chosen, say)
    modules = go_modules(resolver) if compiles else ()
    entries = tuple(sorted((resolver.maker.file(name) for name in names), key=lambda entry: entry.name))
    contents = Contents(Path(profile).stem, tuple(chapter.id for chapter in chosen), entries, modules)
    partial = target.with_name(f"{target.name}.partial")
    there = partial.stat().st_size if partial.exists() else 0
    _demand_room(target.parent, contents.size - there)
    say(
        f"{len(entries)} components, {contents.size / 1e9:.1f} GB, for chapters {chosen[0].number} to {chosen[-1].number}"
    )
    found = bundle_file.members(contents, resolver.store, _modules())
    size = bundle_file.write(target, found, say=_progress(say, "written", contents.size))
    say(f"✓ {target}: {size / 1e9:.1f} GB")
    return contents


def load(file: Path, *, say: Say = print) -> int:
    """Add a bundle's components to this user's cache; existing ones stay. Returns how many were added.

    Raises:
        InputError: the file is not a bundle, or is damaged, truncated or from another version; or there is no space.
    """
    from stackbook.artifacts.resolver import Resolver

    reader = Reader.open(file)
    try:
        contents = reader.contents
        resolver = Resolver.open(versions=_versions(contents.entries))
        known = {key for name in resolver.catalogue.artifacts for key in _keys(resolver, name)}
        if strange := [entry.name for entry in contents.entries if (entry.name, entry.key) not in known]:
            some = ", ".join(strange[:3])
            raise InputError(
                f"{file} was saved by another version of stackbook: {len(strange)} of {len(contents.entries)} components differ ({some})",
                fix="save the bundle with the checkout that this host has",
            )
        missing = [e for e in contents.entries if not resolver.store.find(e.name, [e.key])]
        _demand_room(paths.cache(), sum(entry.size for entry in missing))
        say(f"{len(missing)} of {len(contents.entries)} components are not in the cache yet")
        done = reader.unpack(resolver.store, _modules(), wanted=missing, say=_progress(say, "read", contents.size))
    finally:
        reader.close()
    release = _versions(contents.entries).get("machines", "")
    if release and release != machine_releases.chosen(machine_releases.HOST):
        say(
            f"the bundle's machines are {release}, but this host is another release: set machine_release: {release} in the profile"
        )
    say(
        f"✓ {done} components are in the cache; chapters {contents.chapters[0][:2]} to {contents.chapters[-1][:2]} need nothing else"
    )
    return done


def _pages(resolver: Resolver, chosen: Sequence[chapters.Chapter], say: Say) -> list[str]:
    """The pages of the chapters' programs, as far as they can be built here; every chapter runs without them."""
    found = []
    for name in dict.fromkeys(page for chapter in chosen for page in chapter.pages):
        try:
            resolver.path(name)
        except ArtifactError as error:
            say(f"the bundle has no {name}: {error}")
        else:
            found.append(name)
    return found


def go_modules(resolver: Resolver) -> tuple[tuple[str, int], ...]:
    """What Go downloaded for the programs that chapters compile: paths below its module cache, and their sizes.

    Raises:
        ToolFailed: a module cannot be downloaded.
    """
    from stackbook.artifacts.go_toolchain import Go

    said = Go(resolver.path("go")).run("mod", "download", "-json").text
    decoder, at, found = json.JSONDecoder(), 0, {}
    while at < len(said.rstrip()):
        module, at = decoder.raw_decode(said, at)
        at += len(said[at:]) - len(said[at:].lstrip())
        for kind in ("Info", "GoMod", "Zip"):
            path = Path(module[kind])
            found[path.relative_to(_modules()).as_posix()] = path.stat().st_size
        hashed = Path(module["Zip"]).with_suffix(".ziphash")
        found[hashed.relative_to(_modules()).as_posix()] = hashed.stat().st_size
    return tuple(sorted(found.items()))


def _modules() -> Path:
    return paths.cache() / "build" / "gomod"


def _keys(resolver: Resolver, name: str) -> list[tuple[str, str]]:
    return [(name, key) for _, key in resolver.maker.recipes(resolver.catalogue.artifact(name)) if key]


def _versions(entries: Sequence[Entry]) -> dict[str, str]:
    """The versions in the bundle that a profile may choose."""
    found = {entry.name: entry.version for entry in entries}
    versions = {
        "kubernetes": found.get("kubelet", ""),
        "machines": machine_releases.numbered(found.get("machine-rootfs", "")),
    }
    return {component: version for component, version in versions.items() if version}


def _demand_room(folder: Path, needed: int) -> None:
    """Refuse a bundle that does not fit on the disk.

    Raises:
        InputError: there are fewer than `needed` bytes free.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed",
            fix="free space, or choose another disk",
        )


def _progress(say: Say, what: str, whole: int) -> Callable[[int], None]:
    shown = 0

    def tell(done: int) -> None:
        nonlocal shown
        if done - shown >= _STEP:
            shown = done
            say(f"  {what}: {done / 1e9:.1f} of {whole / 1e9:.1f} GB")

    return tell


def command(action: str, file: str, profile: str, last: str) -> int:
    """The function of `stackbook bundle`; returns the exit status."""
    from stackbook.core import ownership

    path = Path(file)
    if action == "load":
        load(path)
        return 0
    save(path, profile, last=last)
    if user := ownership.user():
        try:
            os.chown(path, *user)
        except OSError as error:
            raise StackbookError(f"{path} still belongs to root: {error.strerror}") from None
    return 0
