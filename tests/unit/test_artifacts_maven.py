"""Files of Maven Central: checked, and unpacked where the catalogue says so. The repository is a folder behind `release`."""

from __future__ import annotations

import hashlib
import stat
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from stackbook.artifacts import maven as maven_files
from stackbook.artifacts import package_registries
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.downloads import download
from stackbook.artifacts.sources import Maven
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

    monkeypatch.setattr(maven_files.downloads, "download", fake)
    monkeypatch.setattr(maven_files, "mvn_serves", lambda: False)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    def get(sha256: str, folder: str) -> Path:
        return maven_files.maven(
            Maven("a/server/1/server-1.zip", sha256, folder), partial=tmp_path / "partial", folder=tmp_path, job="j",
            repository=tmp_path / "m2", report=lambda _: None, log=tmp_path / "log", cancel=threading.Event(),
        )  # fmt: skip

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
    central = maven_files.maven_repository()
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text(
        f"<settings{namespace}><mirrors><mirror><id>m</id><mirrorOf>{of}</mirrorOf>"
        "<url> https://mirror.example.com/maven/ </url></mirror></mirrors></settings>"
    )
    wanted = "https://mirror.example.com/maven" if mirrored else central
    assert maven_files.maven_repository() == wanted


def test_settings_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text("<settings>")
    with pytest.raises(InputError, match=r"settings\.xml cannot be read"):
        maven_files.maven_repository()


def test_the_catalogue_pins_elasticsearch_by_its_hash() -> None:
    source = load().artifact("elasticsearch").sources[0]
    assert isinstance(source, Maven)
    assert len(source.sha256) == 64 and source.folder == f"elasticsearch-{load().versions['elasticsearch']}"


class Mvn:
    """Stands for mvn: keeps what it was asked, and copies a file, or fails."""

    def __init__(self, content: bytes | None) -> None:
        self.content, self.argv = content, [""]

    def __call__(self, argv: list[str], *, on_line: Callable[[str], None], **_: object) -> int:
        self.argv = argv
        if self.content is None:
            on_line("[ERROR] Could not transfer artifact")
            return 1
        target = Path(argv[-1].partition("=")[2])
        target.mkdir()
        (target / "server-1.zip").write_bytes(self.content)
        return 0


def by_mvn(mvn: Mvn, tmp_path: Path, sha256: str, notes: list[str]) -> Path:
    return maven_files.maven(
        Maven("a/b/server/1/server-1.zip", sha256), partial=tmp_path / "partial", folder=tmp_path, job="j", run=mvn,
        repository=tmp_path / "m2", report=lambda p: notes.append(str(p)), log=tmp_path / "log", cancel=threading.Event(),
    )  # fmt: skip


def test_mvn_is_asked_with_the_users_settings(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(maven_files.shutil, "which", lambda _: "/usr/bin/mvn")
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2/settings.xml").write_text("<settings/>")
    mvn = Mvn(archive.read_bytes())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert by_mvn(mvn, tmp_path, digest, []).read_bytes() == archive.read_bytes()
    assert f"-s {tmp_path}/.m2/settings.xml" in " ".join(mvn.argv)
    assert "-Dartifact=a.b:server:1:zip" in mvn.argv
    assert f"-Dmaven.repo.local={tmp_path}/m2" in mvn.argv


def test_a_file_from_mvn_with_another_hash_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maven_files, "mvn_serves", lambda: True)
    with pytest.raises(ArtifactError, match="it should be 0000"):
        by_mvn(Mvn(archive.read_bytes()), tmp_path, "0" * 64, [])


def test_where_mvn_fails_its_repository_is_asked_without_it(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maven_files, "mvn_serves", lambda: True)
    monkeypatch.setattr(maven_files.downloads, "download", lambda url, **_: archive)
    notes: list[str] = []
    assert by_mvn(Mvn(None), tmp_path, "0" * 64, notes) == archive
    assert any("Could not transfer artifact" in note for note in notes)


@pytest.mark.parametrize(
    ("installed", "proxy", "settings", "serves"),
    [(True, "", False, True), (False, "", False, False), (True, "http://p:3128", False, False), (True, "http://p:3128", True, True)],
)  # fmt: skip
def test_mvn_reads_no_proxy_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, proxy: str, settings: bool, serves: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr(maven_files.shutil, "which", lambda _: "/usr/bin/mvn" if installed else None)
    if settings:
        (tmp_path / ".m2").mkdir()
        (tmp_path / ".m2/settings.xml").write_text("<settings/>")
    assert maven_files.mvn_serves() is serves
