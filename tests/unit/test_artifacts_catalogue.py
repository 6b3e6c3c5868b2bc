"""The catalogue agrees with go.mod and with itself, and bad input is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from stackbook.artifacts import catalogue_loader as loading
from stackbook.artifacts.catalogue import Catalogue
from stackbook.artifacts.catalogue_loader import LIB, load
from stackbook.artifacts.sources import Build, Release, Wheel
from stackbook.core.errors import InputError

RAW = yaml.safe_load((LIB / "stackbook/artifacts/catalogue.yaml").read_text())


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def test_versions_are_text() -> None:
    assert all(isinstance(version, str) for version in RAW["versions"].values())


def test_every_name_that_is_used_exists(catalogue: Catalogue) -> None:
    for image in catalogue.images.values():
        assert {file for file, _ in image.files} <= set(catalogue.artifacts)
        assert not image.base or image.base in catalogue.bases
    for members in catalogue.bundles.values():
        assert set(members) <= set(catalogue.images)
    for artifact in catalogue.artifacts.values():
        for source in artifact.sources:
            assert not isinstance(source, Build) or source.group in catalogue.groups
    for name in catalogue.default_names():
        catalogue.resolve(name)


def test_checksums_have_their_shape_and_wheels_always_have_one(catalogue: Catalogue) -> None:
    for artifact in catalogue.artifacts.values():
        for source in artifact.sources:
            if isinstance(source, Wheel) or (isinstance(source, Release) and source.sha256):
                assert re.fullmatch(r"[0-9a-f]{64}", source.sha256 or "")


def test_image_names(catalogue: Catalogue) -> None:
    kubernetes = catalogue.versions["kubernetes"]
    assert catalogue.image("kube-apiserver").reference == f"stackbook.local/kube-apiserver:v{kubernetes}"
    assert catalogue.image("kube-apiserver").official == f"registry.k8s.io/kube-apiserver:v{kubernetes}"
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+", image.reference) for image in catalogue.images.values())


def test_every_command_of_the_apps_has_an_image(catalogue: Catalogue) -> None:
    commands = {folder.name for folder in (LIB / "apps/cmd").glob("*/")}
    assert commands <= set(catalogue.images)
    assert commands <= set(catalogue.bundles["apps"])
    assert catalogue.artifact("bookinfo").name == "app-bookinfo"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c: c.artifact("kubectle"), "did you mean kubectl"),
        (lambda c: c.image("proxyv3"), "did you mean proxyv2"),
        (lambda c: c.bundle("isto"), "did you mean istio"),
        (lambda c: c.resolve("image:etdc"), "did you mean etcd"),
        (lambda c: c.resolve("qqqq"), "one of: .*kubectl"),
    ],
)
def test_an_unknown_name_gets_the_nearest(catalogue: Catalogue, ask, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ask(catalogue)


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"istio": "1.30.0"}, "no source has all of istio 1.30.0"),
        ({"kubernets": "1.36.3"}, "did you mean kubernetes"),
        ({"kubernetes": 1.36}, "quoted"),
    ],
)
def test_a_version_that_cannot_be_had_is_bad_input(versions, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(versions=versions)


def test_another_version_with_a_published_checksum_may_be_chosen() -> None:
    other = load(versions={"kubernetes": "v1.36.4"})
    assert other.versions["kubernetes"] == "1.36.4"
    assert other.overridden == {"kubernetes"}
    release = other.artifact("kubelet").sources[0]
    assert isinstance(release, Release)
    assert "v1.36.4" in release.url
    assert release.sha256


def test_a_go_mod_that_disagrees_is_said(tmp_path: Path) -> None:
    for folder in ("toolchain", "toolchain/cni"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(LIB / folder / "go.mod", tmp_path / folder)
    go_mod = tmp_path / "toolchain/go.mod"
    go_mod.write_text(go_mod.read_text().replace("k8s.io/kubernetes v1.36.3", "k8s.io/kubernetes v1.36.2"))
    with pytest.raises(InputError, match=r"go.mod has v1.36.2 of k8s.io/kubernetes"):
        load(lib=tmp_path)
    with pytest.raises(InputError, match="from its checkout"):
        load(lib=tmp_path / "nowhere")


def test_the_tag_of_the_apps_follows_their_sources(tmp_path: Path) -> None:
    for folder in ("toolchain", "maven"):
        shutil.copytree(LIB / folder, tmp_path / folder)
    (tmp_path / "apps/cmd/one").mkdir(parents=True)
    (tmp_path / "apps/go.mod").write_text("module x\n")
    source = tmp_path / "apps/cmd/one/main.go"
    tags = []
    for text in ("package main", "package main // changed"):
        source.write_text(text)
        tags.append(load(lib=tmp_path).image("one").reference)
    source.with_name("main_test.go").write_text("package main")
    assert load(lib=tmp_path).image("one").reference == tags[1] != tags[0]
    assert loading.PREFIX in tags[0]
