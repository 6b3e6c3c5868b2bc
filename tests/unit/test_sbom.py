"""The bill of materials: by the official schema, of every part, the same each time, and another one when a part is."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from stackbook.app import cli, sbom
from stackbook.artifacts import page_builds
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.sources import Maven, Npm, Pages, Wheel
from stackbook.core import paths

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.text()


@pytest.fixture(scope="module")
def components(text: str) -> dict[str, dict[str, Any]]:
    return {c["purl"]: c for c in json.loads(text)["components"]}


def test_it_is_what_the_official_schema_wants(text: str) -> None:
    """Of each kind of package the first 20: the validator compares each with each."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    data = json.loads(text)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for component in data["components"]:
        kinds.setdefault(component["purl"].partition("/")[0], []).append(component)
    assert len(kinds) >= 6
    data["components"] = [component for each in kinds.values() for component in each[:20]]
    names = {"stackbook", *(component["bom-ref"] for component in data["components"])}
    data["dependencies"] = [each for each in data["dependencies"] if each["ref"] in names]
    assert validator.validate_str(json.dumps(data)) is None
    data["components"][0]["type"] = "thing"
    assert validator.validate_str(json.dumps(data)) is not None  # the control: the schema is there and is looked at


def test_it_names_every_python_package_with_its_hashes(components: dict[str, dict[str, Any]]) -> None:
    lock = (paths.checkout() / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", lock, re.MULTILINE)
    assert len(pinned) > 100
    for name, version in pinned:
        found = components[f"pkg:pypi/{re.sub(r'[-_.]+', '-', name)}@{version}"]
        assert found["hashes"], name
    listed = {
        h["content"] for p, c in components.items() if p.startswith("pkg:pypi/") and "?" not in p for h in c["hashes"]
    }
    assert listed == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


def test_it_names_every_go_module_of_every_go_sum(components: dict[str, dict[str, Any]]) -> None:
    wanted = set()
    files = list((paths.checkout() / "lib").rglob("go.sum"))
    for file in files:
        wanted |= {tuple(line.split()) for line in file.read_text().splitlines() if "/go.mod " not in line}
    modules = {p: c for p, c in components.items() if p.startswith("pkg:golang/")}
    shown = {p["value"] for c in modules.values() for p in c["properties"] if p["name"] == "stackbook:h1"}
    assert len(files) > 5 and shown == {digest for _, _, digest in wanted}
    assert Counter(c["version"] for c in modules.values()) == Counter(version for _, version, _ in wanted)
    assert "pkg:golang/istio.io/istio@" in " ".join(modules)


def test_it_names_what_the_catalogue_names(components: dict[str, dict[str, Any]]) -> None:
    catalogue = load()
    by_hash = {h["content"]: purl for purl, c in components.items() for h in c.get("hashes", ())}
    sources = [s for a in catalogue.artifacts.values() for s in a.sources if isinstance(s, Wheel | Maven)]
    kinds = {Wheel: "pkg:pypi/", Maven: "pkg:maven/"}
    assert {type(s) for s in sources} == set(kinds)
    assert all(by_hash[s.sha256].startswith(kinds[type(s)]) for s in sources)
    npm = {s.package: s for a in catalogue.artifacts.values() for s in a.sources if isinstance(s, Npm)}
    assert set(npm) == {"pnpm", "yarn"}
    for name, source in npm.items():
        noted = components[f"pkg:npm/{name}@{catalogue.versions[name]}"]["properties"]
        assert source.integrity in [note["value"] for note in noted]
    for package in catalogue.host_packages:
        assert f"pkg:deb/debian/{package}" in components
    assert "pkg:deb/debian/containerd?distro=bookworm" in components
    pulled = {i.official.rpartition("/")[2].partition(":")[0] for i in catalogue.images.values() if i.official}
    assert pulled and pulled <= {c["name"] for p, c in components.items() if p.startswith("pkg:oci/")}


def test_it_names_the_npm_packages_inside_web_pages(components: dict[str, dict[str, Any]]) -> None:
    catalogue = load()
    pages = {a.name: source for a in catalogue.artifacts.values() for source in a.sources if isinstance(source, Pages)}
    assert set(pages) == {"gitea-pages", "kiali-pages", "prometheus-pages"}
    for name, source in pages.items():
        first, *lines = (paths.checkout() / "lib" / "npm" / f"{name}.lock").read_text().splitlines()
        module = page_builds.module_sum(source, catalogue.groups[source.group])
        assert first == f"# {module}", f"of another version: python tools/npm_lists.py {name}"
        assert len(lines) > 500
        for line in lines:
            package, _, integrity = line.partition(" ")
            plain, _, version = package.removeprefix("@").rpartition("@")
            purl = f"pkg:npm/{'%40' if package.startswith('@') else ''}{plain}@{version}"
            noted = [n["value"] for n in components[purl]["properties"] if n["name"] == "stackbook:integrity"]
            assert integrity in noted, line
        weak = [line for line in lines if not line.partition(" ")[2].startswith("sha512-")]
        assert len(weak) <= (48 if name == "kiali-pages" else 0), "Kiali's lockfile has SHA-1 sums of some old packages"


def test_the_same_parts_give_the_same_text_and_others_another(text: str, tmp_path: Path) -> None:
    assert "timestamp" not in text
    (tmp_path / "lib").mkdir()
    shutil.copy(paths.checkout() / "requirements.lock", tmp_path)
    assert sbom.text(tmp_path) == sbom.text(tmp_path)
    numbers = set()
    for line in ("", "example.org/a v1.0.0 h1:AAAA\n", "example.org/a v1.0.0 h1:AAAB\n"):
        (tmp_path / "lib" / "go.sum").write_text(line)
        data = json.loads(sbom.text(tmp_path))
        assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", data["serialNumber"])
        numbers.add(data["serialNumber"])
    assert len(numbers) == 3


def test_the_command(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sbom, "text", lambda: text)  # it takes some seconds
    assert cli.main(["sbom"]) == 0
    assert capsys.readouterr().out == text
    file = tmp_path / "sbom.json"
    assert cli.main(["sbom", "--output", str(file)]) == 0
    assert file.read_text() == text
    assert capsys.readouterr().out == f"{len(json.loads(text)['components'])} parts: {file}\n"
    assert cli.main(["sbom", "--output", str(tmp_path / "no" / "folder")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
