"""Read `catalogue.yaml`: insert versions, compare pins with go.mod, refuse bad input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stackbook.artifacts import machine_releases
from stackbook.artifacts.catalogue import Artifact, Base, Catalogue, Group, Image, known
from stackbook.artifacts.digests import source_digest
from stackbook.artifacts.jars import read_lock
from stackbook.artifacts.sources import Build, Debian, DebianSource, Jars, Maven, Npm, Pages, Release, Source, Wheel
from stackbook.core import yaml_text
from stackbook.core.errors import InputError

PREFIX = "stackbook.local"
LIB = Path(__file__).resolve().parents[2]


def load(*, versions: Mapping[str, str] | None = None, strict: bool = False, lib: Path = LIB) -> Catalogue:
    """Read the catalogue; `versions` replaces versions of its components.

    With `strict`, only pinned checksums count, and not those that projects publish beside their files.

    Raises:
        InputError: a component is unknown, a version is not a string or no source has it, or the catalogue does not
            agree with the toolchain's go.mod.
    """
    raw = yaml_text.load((Path(__file__).with_name("catalogue.yaml")).read_text())
    pinned: dict[str, str] = raw["versions"]
    chosen = dict(pinned)
    for component, version in (versions or {}).items():
        known(component, pinned, "component")
        if not isinstance(version, str):
            raise InputError(
                f"the version of {component} is {version!r}, a number", fix=f'write it as "{pinned[component]}", quoted'
            )
        chosen[component] = version.removeprefix("v")
    overridden = frozenset(name for name in chosen if chosen[name] != pinned[name] and name != "machines")
    chosen["machines"] = machine_releases.chosen(chosen["machines"])
    _check_pins(raw["pins"], pinned, lib)
    words = _words(chosen, lib)
    locks = _locks(raw["locks"], pinned, chosen, lib)
    artifacts = {name: _artifact(name, spec, chosen, raw, strict, locks) for name, spec in raw["artifacts"].items()}
    images = {name: _image(name, spec, words) for name, spec in raw["images"].items()}
    groups = {name: _group(name, spec, words, lib) for name, spec in raw["builds"].items()}
    bundles = {name: tuple(members) for name, members in raw["bundles"].items()}
    _add_apps(raw["apps"], lib, chosen["apps"], artifacts, images, bundles)
    same = chosen["machines"] == machine_releases.IMAGES
    if same:
        del artifacts["image-rootfs"]
    bases = {name: _base(spec, "machine-rootfs" if same else "image-rootfs") for name, spec in raw["bases"].items()}
    for component in sorted(overridden):
        _check_override(component, chosen[component], pinned[component], artifacts.values(), raw, strict)
    return Catalogue(chosen, artifacts, groups, images, bases, bundles, raw["host_packages"], pinned, overridden)


def _artifact(
    name: str, spec: Mapping[str, Any], versions: Mapping[str, str], raw: Mapping[str, Any], strict: bool,
    locks: Mapping[str, Jars],
) -> Artifact:  # fmt: skip
    version = versions[spec["version"]]
    of_locks = (locks[source["jars"]] for source in spec["sources"] if "jars" in source)
    sources = (
        *of_locks,
        *(_source(source, version, raw, strict) for source in spec["sources"] if "jars" not in source),
    )
    if spec["version"] == "machines":
        version = machine_releases.RELEASES[version].version
    return Artifact(
        name,
        spec.get("kind", "file"),
        version,
        spec.get("chapter", "00"),
        spec["size"],
        spec.get("seconds", 0.0),
        sources,
    )


def _locks(
    specs: Mapping[str, Mapping[str, str]], pinned: Mapping[str, str], chosen: Mapping[str, str], lib: Path
) -> dict[str, Jars]:
    """The lock of each component that has one; without files for another version than the pinned one.

    Raises:
        InputError: a lock cannot be read, or does not hold the catalogue's version.
    """
    found = {}
    for component, spec in specs.items():
        lock = read_lock(lib / spec["file"])
        if not any(path.startswith(spec["has"].format(version=pinned[component])) for path, _ in lock.files):
            raise InputError(
                f"the catalogue has {component} {pinned[component]}, {spec['file']} has not",
                fix="set the same version in lib/stackbook/artifacts/catalogue.yaml and in its pom.xml, and write the lock again",
            )
        found[component] = lock if chosen[component] == pinned[component] else Jars(())
    return found


def _source(spec: Mapping[str, Any], version: str, raw: Mapping[str, Any], strict: bool) -> Source:
    sums = spec.get("sha256") or {}
    if "release" in spec:
        url = spec["release"].format(version=version)
        return Release(url, sums.get(version), url + spec["published"] if "published" in spec and not strict else "")
    if "build" in spec:
        package = spec.get("package", "")
        return Build(
            spec["build"], package, spec.get("output", _program(package)), spec.get("module", ""), spec.get("path", "")
        )
    if "wheel" in spec:
        file = spec["file"].format(version=version)
        member = spec.get("member", "").format(version=version)
        return Wheel(spec["wheel"], file, sums.get(version, ""), member, spec.get("folder", ""))
    if "maven" in spec:
        folder = spec.get("folder", "").format(version=version)
        return Maven(spec["maven"].format(version=version), sums.get(version, ""), folder)
    if "npm" in spec:
        return Npm(spec["npm"], spec["integrity"].get(version, ""))
    if "pages" in spec:
        commands = tuple(command.replace("{version}", version) for command in spec["commands"])
        return Pages(
            spec["pages"], spec["module"], spec["path"], commands, spec["output"], spec["proof"],
            spec.get("manager", "pnpm"),
        )  # fmt: skip
    if "debian-source" in spec:
        suite = machine_releases.RELEASES[spec["suite"]].suite
        return DebianSource(
            suite,
            spec["debian-source"],
            version,
            tuple(raw[spec["packages"]].split()),
            tuple(spec["commands"]),
            spec["prefix"],
        )
    release = version if spec["debian"] == "machines" else spec["debian"]
    return Debian(
        machine_releases.RELEASES[release].suite,
        tuple(" ".join(raw[name] for name in spec["packages"].split()).split()),
        spec.get("boots", False),
        spec.get("kernel", False),
    )


def _program(package: str) -> str:
    """The file name that `go build` gives a package: its last element, or the one before if the last is a major version.

    >>> _program("go.etcd.io/etcd/etcdctl/v3"), _program("./pause")
    ('etcdctl', 'pause')
    """
    elements = [element for element in package.split("/") if element]
    if elements and re.fullmatch(r"v\d+", elements[-1]):
        elements.pop()
    return elements[-1] if elements else ""


def _group(name: str, spec: Mapping[str, Any], words: Mapping[str, str], lib: Path) -> Group:
    ldflags = {variable: value.format(**words) for variable, value in spec.get("ldflags", {}).items()}
    return Group(name, lib / spec["folder"], float(spec["seconds"]), ldflags, tuple(spec.get("tags", ())))


def _image(name: str, spec: Mapping[str, Any], words: Mapping[str, str]) -> Image:
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **spec.get("env", {})}
    return Image(
        name=name,
        reference=f"{PREFIX}/{name}:{spec['tag'].format(**words)}",
        official=spec.get("official", "").format(**words),
        base=spec.get("base", ""),
        files=tuple(spec.get("files", {}).items()),
        folders=tuple(spec.get("folders", ())),
        owner=spec.get("owner", 0),
        env=tuple((key, value.format(**words)) for key, value in env.items()),
        entrypoint=tuple(spec.get("entrypoint", ())),
        command=tuple(spec.get("command", ())),
        user=spec.get("user", ""),
        digest=spec.get("digest", ""),
        set=spec.get("set", name),
        instead=spec.get("instead", ""),
    )


def _base(spec: Mapping[str, Any], root: str) -> Base:
    return Base(tuple(spec["packages"]), spec.get("below", ""), spec.get("root", root), spec.get("own_key", False))


def _add_apps(
    spec: Mapping[str, Any], lib: Path, number: str, artifacts: dict[str, Artifact], images: dict[str, Image],
    bundles: dict[str, tuple[str, ...]],
) -> None:  # fmt: skip
    """One artifact and one image for each command of lib/apps; the tag changes with the sources."""
    source = source_digest(lib / "apps")[:8] if (lib / "apps" / "go.mod").exists() else ""
    for folder in sorted((lib / "apps" / "cmd").glob("*/")):
        name = folder.name
        version = f"{number}-{source}"
        program = f"/usr/local/bin/{name}"
        build = Build("apps", f"./cmd/{name}", name)
        artifacts[f"app-{name}"] = Artifact(f"app-{name}", "file", version, "05", 8_000_000, 0.0, (build,))
        images[name] = _image(
            name,
            {"tag": version, "files": {f"app-{name}": program},
             "entrypoint": [program], "user": spec["user"]},
            {},
        )  # fmt: skip
        bundles["apps"] = (*bundles["apps"], name)


def _words(versions: Mapping[str, str], lib: Path) -> dict[str, str]:
    """What the catalogue's texts may contain: versions, and the digest of the shop's sources, which its tag changes with."""
    words = dict(versions)
    words["kubernetes_minor"] = versions["kubernetes"].split(".")[1]
    for module in ("shop", "follow"):
        words[f"{module}_sources"] = source_digest(lib / module)[:8] if (lib / module / "go.mod").exists() else ""
    return words


def _check_pins(pins: Mapping[str, Mapping[str, str]], versions: Mapping[str, str], lib: Path) -> None:
    """Check that go.mod requires the catalogue's versions; otherwise a program would report a wrong version."""
    for component, pin in pins.items():
        path = lib / pin["folder"] / "go.mod"
        if not path.exists():
            raise InputError(f"{path} is missing", fix="run stackbook from its checkout, which has lib/toolchain")
        found = re.search(rf"^\s*(?:require )?{re.escape(pin['module'])} (v\S+)", path.read_text(), re.MULTILINE)
        version = versions[component]
        wanted = pin["require"].format(version=version, last=version.rpartition(".")[2])
        if not found or found[1] != wanted:
            actual = found[1] if found else "nothing"
            raise InputError(
                f"the catalogue has {component} {version}, {pin['folder']}/go.mod has {actual} of {pin['module']}",
                fix="set the same version in lib/stackbook/artifacts/catalogue.yaml and in go.mod",
            )


def _check_override(
    component: str, version: str, pinned: str, artifacts: Iterable[Artifact], raw: Mapping[str, Any], strict: bool
) -> None:
    """Check that a version other than the pinned one has releases with a checksum, pinned or published."""
    concerned = [
        artifact for artifact in artifacts if raw["artifacts"].get(artifact.name, {}).get("version") == component
    ]
    if concerned and all(any(isinstance(s, Release) and s.checked for s in item.sources) for item in concerned):
        return
    fix = f'set {component.replace("-", "_")}_version: "{pinned}", which the toolchain builds'
    if strict:
        fix += ", or set strict: false, which takes the checksum that the project publishes"
    raise InputError(
        f"no source has all of {component} {version} with a {'pinned ' if strict else ''}checksum", fix=fix
    )
