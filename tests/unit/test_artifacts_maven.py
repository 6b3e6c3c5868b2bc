"""Files of Maven Central: checked, and unpacked where the catalogue says so. The repository is a folder behind `release`."""

from __future__ import annotations

import hashlib
import stat
import threading
import zipfile
from pathlib import Path

import pytest
from stackbook.artifacts import package_registries
from stackbook.artifacts.catalogue import Catalogue, Maven
from stackbook.artifacts.downloads import download
from stackbook.core.errors import ArtifactError, InputError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "server-1.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.mkdir("server-1/plugins")
        info = zipfile.ZipInfo("server-1/bin/run")
        info.external_attr = (stat.S_IFREG | 0o755) << 16
        packed.writestr(info, "#!")
        packed.writestr("elsewhere/x", "x")
    return path


def test_a_zip_is_unpacked_with_its_empty_folders_and_execute_bits(archive: Path, tmp_path: Path) -> None:
    found = package_registries.unpack(archive, tmp_path / "out", top="server-1")
    assert (found / "plugins").is_dir() and (found / "bin/run").stat().st_mode & 0o111
    assert not (tmp_path / "out/elsewhere").exists()


def test_a_download_with_another_hash_is_not_unpacked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(url: str, *, sha256: str, partial: Path, **_: object) -> Path:
        if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
            raise ArtifactError(f"{url} is not what the catalogue says")
        partial.write_bytes(archive.read_bytes())
        return partial

    monkeypatch.setattr(package_registries.downloads, "download", fake)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    def get(sha256: str, folder: str) -> Path:
        return package_registries.maven(Maven("a/b/server-1.zip", sha256, folder), partial=tmp_path / "partial", folder=tmp_path, job="j",
                              report=lambda _: None, cancel=threading.Event())  # fmt: skip

    assert get(digest, "server-1") == tmp_path / "unpacked/server-1"
    assert not (tmp_path / "partial").exists()
    assert get(digest, "") == tmp_path / "partial"
    with pytest.raises(ArtifactError, match="not what the catalogue says"):
        get("0" * 64, "server-1")
    assert download is not fake


@pytest.mark.parametrize(
    ("of", "mirrored"),
    [
        ("central", True),
        ("*", True),
        ("external:*", True),
        ("a, central", True),
        ("*,!central", False),
        ("other", False),
    ],
)
@pytest.mark.parametrize("namespace", ["", ' xmlns="http://maven.apache.org/SETTINGS/1.2.0"'])
def test_a_mirror_of_the_users_settings_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, mirrored: bool, namespace: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    central = package_registries.maven_repository()
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(
        f"<settings{namespace}><mirrors><mirror><id>m</id><mirrorOf>{of}</mirrorOf>"
        "<url> https://mirror.example.com/maven/ </url></mirror></mirrors></settings>"
    )
    wanted = "https://mirror.example.com/maven" if mirrored else central
    assert package_registries.maven_repository() == wanted


def test_settings_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text("<settings>")
    with pytest.raises(InputError, match=r"settings\.xml cannot be read"):
        package_registries.maven_repository()


def test_the_catalogue_pins_elasticsearch_by_its_hash() -> None:
    source = Catalogue.load().artifact("elasticsearch").sources[0]
    assert isinstance(source, Maven)
    assert len(source.sha256) == 64 and source.folder == f"elasticsearch-{Catalogue.load().versions['elasticsearch']}"
