"""`stackbook sbom`: the lab's parts as a CycloneDX bill of materials.

It is read from the files that pin each part: the lock of the Python packages, the go.sum files, the catalogue of components,
and the lists of the npm packages inside web pages. The same parts give the same text, byte for byte: the serial number depends
only on the content, and there is no timestamp.
https://cyclonedx.org/docs/1.6/json/, names by https://github.com/package-url/purl-spec
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.artifacts.catalogue import Artifact
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.machine_releases import of_suite
from stackbook.artifacts.sources import Debian, DebianSource, Jars, Maven, Npm, Release, Wheel
from stackbook.core import paths
from stackbook.core.version import __version__

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

_LOCKED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE)
_SUM = re.compile(r"^(\S+) (v[^\s/]+) h1:(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """One part of the lab.

    Attributes:
        purl: its package URL.
        sha256: its files' checksums in hexadecimal; for a Go module, the h1 of go.sum.
        pinned_in: the files that pin it, as paths in the checkout.
        notes: further information, by name.
    """

    purl: PackageURL
    sha256: tuple[str, ...]
    pinned_in: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()


def parts(root: Path | None = None) -> list[Part]:
    """Every part once, in the order of their package URLs.

    Args:
        root: the checkout; if None, this one.
    """
    folder = root or paths.checkout()
    found: dict[str, Part] = {}
    for part in (*_python(folder), *_go(folder), *_catalogue(), *_pages(folder)):
        key = str(part.purl)
        known = found.get(key)
        pinned = (*(known.pinned_in if known else ()), *part.pinned_in)
        hashes = {*(known.sha256 if known else ()), *part.sha256}
        notes = (*(known.notes if known else ()), *part.notes)  # two lockfiles may have other checksums of one package
        found[key] = Part(part.purl, tuple(sorted(hashes)), tuple(dict.fromkeys(pinned)), tuple(dict.fromkeys(notes)))
    return [found[key] for key in sorted(found)]


def _python(root: Path) -> Iterator[Part]:
    """The packages of requirements.lock, with the hashes of all their files."""
    from packageurl import PackageURL

    for match in _LOCKED.finditer((root / "requirements.lock").read_text(encoding="utf-8")):
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", match["rest"])
        yield Part(PackageURL("pypi", None, name, match["version"]), tuple(hashes), ("requirements.lock",))


def _go(root: Path) -> Iterator[Part]:
    """The modules whose content a go.sum pins. Like cyclonedx-gomod, it gives h1 as SHA-256, and in its original form."""
    from packageurl import PackageURL

    for path in sorted((root / "lib").rglob("go.sum")):
        for module, version, digest in _SUM.findall(path.read_text(encoding="utf-8")):
            namespace, _, name = module.rpartition("/")
            yield Part(
                PackageURL("golang", namespace or None, name, version),
                (base64.b64decode(digest).hex(),),
                (str(path.relative_to(root)),),
                (("h1", f"h1:{digest}"),),
            )


def _catalogue() -> Iterator[Part]:
    """The catalogue's parts other than Go modules: wheels, Maven files, npm packages, releases with a checksum, Debian packages."""
    catalogue = load()
    for artifact in catalogue.artifacts.values():
        for source in artifact.sources:
            yield from _source(artifact, source)
    for base in catalogue.bases.values():
        roots = [source for source in catalogue.artifact(base.root).sources if isinstance(source, Debian)]
        yield from (_debian(package, root.suite) for root in roots for package in base.packages)
    for package in catalogue.host_packages:
        yield _debian(package)
    for image in catalogue.images.values():
        if image.official:
            yield _image(image.official)


def _pages(root: Path) -> Iterator[Part]:
    """The npm packages that web pages are built of. `tools/npm_lists.py` writes their lists."""
    from packageurl import PackageURL

    for path in sorted((root / "lib" / "npm").glob("*.lock")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            package, _, integrity = line.partition(" ")
            name, _, version = package.rpartition("@")
            namespace, _, plain = name.rpartition("/")
            purl = PackageURL("npm", namespace or None, plain, version)
            yield Part(purl, (), (str(path.relative_to(root)),), (("integrity", integrity),))


def _image(reference: str) -> Part:
    """An image that is pulled if its registry can be reached."""
    from packageurl import PackageURL

    folder, _, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    qualifiers = {"repository_url": f"{folder}/{name}", **({"tag": tag} if tag else {})}
    return Part(PackageURL("oci", None, name, None, qualifiers), (), ("lib/stackbook/artifacts/catalogue.yaml",))


def _source(artifact: Artifact, source: object) -> Iterator[Part]:
    from packageurl import PackageURL

    pinned = ("lib/stackbook/artifacts/catalogue.yaml",)
    if isinstance(source, Wheel):
        name = re.sub(r"[-_.]+", "-", source.package).lower()
        purl = PackageURL("pypi", None, name, artifact.version, {"file_name": source.file})
        yield Part(purl, (source.sha256,), pinned)
    elif isinstance(source, Maven):
        yield _of_maven(source.path, source.sha256, pinned)
    elif isinstance(source, Npm):
        notes = (("integrity", source.integrity),)
        yield Part(PackageURL("npm", None, source.package, artifact.version), (), pinned, notes)
    elif isinstance(source, Jars):
        yield from (_of_maven(path, sha256, (f"lib/maven/{artifact.name}/jars.lock",)) for path, sha256 in source.files)
    elif isinstance(source, Release) and source.sha256:
        purl = PackageURL("generic", None, artifact.name, artifact.version, {"download_url": source.url})
        yield Part(purl, (source.sha256,), pinned)
    elif isinstance(source, Debian):
        yield from (_debian(package, source.suite) for package in source.packages)
    elif isinstance(source, DebianSource):
        yield _debian(source.package, source.suite)


def _of_maven(path: str, sha256: str, pinned: tuple[str, ...]) -> Part:
    """A file of Maven Central, by its path below the repository's root."""
    from packageurl import PackageURL

    *group, name, version, file = path.split("/")
    purl = PackageURL("maven", ".".join(group), name, version, {"type": file.rpartition(".")[2]})
    return Part(purl, (sha256,), pinned)


def _debian(package: str, suite: str = "") -> Part:
    """A package of Debian or Ubuntu: its version is the suite's, and its proof is the archive's signature."""
    from packageurl import PackageURL

    qualifiers = {"distro": suite} if suite else {}
    pinned = ("lib/stackbook/artifacts/catalogue.yaml",)
    return Part(
        PackageURL("deb", of_suite(suite).label.lower() if suite else "debian", package, None, qualifiers),
        (),
        pinned,
        (("checked-by", "apt, the archive's signature"),),
    )


def text(root: Path | None = None) -> str:
    """The bill of materials as JSON (CycloneDX 1.6)."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.output.json import JsonV1Dot6

    all_parts = parts(root)
    bom = Bom(serial_number=_serial(all_parts))
    bom.metadata.component = Component(
        name="stackbook", version=__version__, type=ComponentType.APPLICATION, bom_ref="stackbook"
    )
    bom.components.update(_component(part) for part in all_parts)
    # Not by `register_dependency`, which searches all dependencies for each one; before the output it would be called again for each.
    each = [Dependency(component.bom_ref) for component in bom.components]
    bom.dependencies.update([Dependency(bom.metadata.component.bom_ref, each), *each])
    bom.register_dependency = lambda target, depends_on=None: None  # type: ignore[method-assign]
    made: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    made["metadata"].pop("timestamp")
    return json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _serial(all_parts: list[Part]) -> uuid.UUID:
    """A serial number that changes whenever a part changes."""
    content = json.dumps([[str(p.purl), p.sha256, p.pinned_in, p.notes] for p in all_parts])
    return uuid.uuid5(uuid.NAMESPACE_URL, f"stackbook {__version__} {hashlib.sha256(content.encode()).hexdigest()}")


def _component(part: Part) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    notes = [*(("pinned-in", file) for file in part.pinned_in), *part.notes]
    kinds = {"oci": ComponentType.CONTAINER, "deb": ComponentType.APPLICATION, "generic": ComponentType.APPLICATION}
    return Component(
        name=part.purl.name,
        group=part.purl.namespace,
        version=part.purl.version or dict(part.purl.qualifiers).get("tag"),
        type=kinds.get(part.purl.type, ComponentType.LIBRARY),
        purl=part.purl,
        bom_ref=str(part.purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in part.sha256],
        properties=[Property(name=f"stackbook:{name}", value=value) for name, value in notes],
    )
