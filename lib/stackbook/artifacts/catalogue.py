"""The contents of the catalogue: components with their sources in order, images, bundles. `catalogue_loader` reads them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stackbook.artifacts.sources import Source
from stackbook.core.errors import InputError

PAGES = "-pages"
"""The end of the names of components that are a program's web pages: the program's name is before it."""
LATE = ("messaging", "shop")
"""The bundles that come after the components of chapter 13, because only chapter 14 needs them."""


@dataclass(frozen=True)
class Artifact:
    """A file or a tree with its `sources` in order; `size` in bytes and `seconds` are first estimates."""

    name: str
    kind: str
    version: str
    chapter: str
    size: int
    seconds: float
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Group:
    """One `go build`: a module folder below lib/, its linker variables, additional build tags, and an estimate in seconds."""

    name: str
    folder: Path
    seconds: float
    ldflags: Mapping[str, str]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image: the parts of the one that stackbook builds, and the official one in its project's registry.

    Attributes:
        files: (artifact, path in the image); empty for an image that can only be pulled.
        official: reference in the project's registry; empty for the lab's own images.
        digest: digest of the official image, `sha256:…`; empty if it is not known.
        set: the images of one set are all pulled or all built.
        instead: the image that is built instead of one that can only be pulled.
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
        """The official image by tag, and by digest if it is known."""
        return f"{self.official}@{self.digest}" if self.digest else self.official

    @property
    def built(self) -> bool:
        """Whether the lab can build it."""
        return bool(self.files or self.base)


@dataclass(frozen=True)
class Base:
    """A base layer: packages of a root file system with their dependencies, on top of the base `below` if it is set.

    Attributes:
        packages: the packages; with `own_key`, also those that other bases leave out (`named_packages`).
        below: the base below this one.
        root: the artifact that is the root file system.
        own_key: only archives with this base change with it; a change of any other base changes every archive.
    """

    packages: tuple[str, ...]
    below: str = ""
    root: str = "machine-rootfs"
    own_key: bool = field(default=False, repr=False)  # an archive's key contains the `repr` of its bases


@dataclass(frozen=True)
class Catalogue:
    """All components, images and bundles, in the order of the file, which is the order of the chapters."""

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
        """The artifact or program of lib/apps with this name; otherwise InputError with the nearest names."""
        if name not in self.artifacts and f"app-{name}" in self.artifacts:
            name = f"app-{name}"
        return known(name, self.artifacts, "artifact")

    def image(self, name: str) -> Image:
        """The image with this name; otherwise InputError with the nearest names."""
        return known(name, self.images, "image")

    def roots(self, members: Iterable[Image]) -> tuple[str, ...]:
        """The root file systems from which the images' base layers are copied, each once."""
        return tuple(dict.fromkeys(self.bases[image.base].root for image in members if image.base))

    def key_bases(self, members: Iterable[Image]) -> dict[str, Base]:
        """The bases by name on which the key of an archive with these images depends."""
        used = {image.base for image in members}
        return {name: base for name, base in self.bases.items() if not base.own_key or name in used}

    def bundle(self, name: str) -> tuple[str, ...]:
        """The images of a bundle; if there is none, InputError with the nearest names."""
        return known(name, self.bundles, "bundle")

    def members(self, kind: str, name: str) -> list[Image]:
        """The images of a bundle, or, for another kind, the one image with this name."""
        return [self.image(member) for member in (self.bundle(name) if kind == "bundle" else (name,))]

    def version(self, name: str) -> str:
        """The version of a component, artifact or image in its project's notation, without a leading v."""
        if name in self.versions:
            return self.versions[name]
        kind, plain = self.resolve(name)
        if kind == "file":
            return self.artifact(plain).version
        image = self.image(plain if kind == "image" else self.bundle(plain)[0])
        return image.reference.rpartition(":")[2].removeprefix("v")

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
        """The files and folders of these components, images and bundles, each once."""
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
        """The names of everything that a lab needs, in the order of its chapters; last the pages, which no chapter needs."""
        early = ["machine-rootfs", "go", "kubeadm", "kubelet", "kubectl", "bundle:control-plane"]
        middle = ["kube-flannel.yml", "bundle:node", "bundle:apps", "istioctl", "envoy"]
        rest = [f"bundle:{name}" for name in self.bundles if name not in LATE]
        late = [
            *(n for n in self.artifacts if n.startswith("app-")),
            "buf",
            "node",
            "compose-config",
            "gitea",
            "gitea-runner",
            "gitlab-ci-schema",
            "swagger",
            *(f"bundle:{name}" for name in LATE),
            "victoria-logs",
            "zipkin",
            "kiali",
            *(n for n in self.artifacts if n.endswith(PAGES)),
            "pipeline-rootfs",
            "docker-compose",
            "filebeat",
            "protobuf-source",
        ]
        return tuple(dict.fromkeys([*early, *middle, *rest, *late]))


_Member = TypeVar("_Member")


def known(name: str, among: Mapping[str, _Member], what: str) -> _Member:
    """The member with this name; otherwise InputError with the nearest names."""
    if name not in among:
        raise unknown(name, among, what)
    return among[name]


def unknown(name: str, among: Iterable[str], what: str) -> InputError:
    """The error for an unknown name, with similar names."""
    names = sorted(set(among))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(names)}"
    return InputError(f"there is no {what} {name!r}", fix=fix)
