"""The files of a lock from Maven Central: all of them, each with its checksum, by mvn or without it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import pytest
from stackbook.artifacts import jars as lock
from stackbook.artifacts.catalogue_loader import LIB, load
from stackbook.artifacts.sources import Jars
from stackbook.core.errors import CorruptArtifact, InputError
from stackbook.core.progress import Progress

CONTENT = {"a/b/one/1/one-1.jar": b"one", "a/b/two/2/two-2-exec.jar": b"two"}
SOURCE = Jars(tuple((path, hashlib.sha256(text).hexdigest()) for path, text in CONTENT.items()))


class Mvn:
    """Stands for mvn: keeps what it was asked, writes the files that it has, and may fail."""

    def __init__(self, content: dict[str, bytes], status: int = 0) -> None:
        self.content, self.status, self.argv = content, status, [""]

    def __call__(
        self, argv: list[str], *, on_line: Callable[[str], None], on_tick: Callable[[float], None], **_: object
    ) -> int:
        self.argv = argv
        for path, text in self.content.items():
            (Path(argv[-1].partition("=")[2]) / PurePosixPath(path).name).write_bytes(text)
        on_tick(1.0)
        if self.status:
            on_line("[ERROR] Could not resolve dependencies")
        return self.status


def get(tmp_path: Path, mvn: Mvn, notes: list[str] | None = None) -> Path:
    said = notes if notes is not None else []
    return lock.jars(
        SOURCE, folder=tmp_path, partial_folder=tmp_path / "partial", repository=tmp_path / "m2", job="j",
        report=lambda moment: said.append(str(moment)), log=tmp_path / "log", cancel=threading.Event(), run=mvn,
    )  # fmt: skip


@pytest.fixture
def central(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Maven Central by HTTP: serves the files, and keeps the addresses that were asked."""
    asked: list[str] = []

    def fake(url: str, *, sha256: str, partial: Path, **_: object) -> Path:
        asked.append(url)
        path = next(path for path in CONTENT if url.endswith(f"/{path}"))
        assert hashlib.sha256(CONTENT[path]).hexdigest() == sha256
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(CONTENT[path])
        return partial

    monkeypatch.setattr(lock.downloads, "download", fake)
    return asked


def test_one_call_of_mvn_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, central: list[str]) -> None:
    monkeypatch.setattr(lock, "mvn_serves", lambda: True)
    (tmp_path / "m2/a/b/one/1").mkdir(parents=True)
    mvn, notes = Mvn(CONTENT), list[str]()
    found = get(tmp_path, mvn, notes)
    assert sorted(path.name for path in found.iterdir()) == ["one-1.jar", "two-2-exec.jar"]
    assert not central and not (tmp_path / "m2/a/b/one/1").exists()
    assert f"-Dmaven.repo.local={tmp_path}/m2" in mvn.argv
    assert any("2 of 2 files" in note for note in notes)


def test_the_project_names_each_file_and_nothing_else() -> None:
    space = "{http://maven.apache.org/POM/4.0.0}"
    root = ElementTree.fromstring(lock.project(SOURCE))
    found = [[(e.tag.removeprefix(space), e.text) for e in one][:5] for one in root.iter(f"{space}dependency")]
    assert [dict(one).get("artifactId") for one in found] == ["one", "two"]
    assert dict(found[1])["classifier"] == "exec" and dict(found[1])["groupId"] == "a.b"
    assert len(list(root.iter(f"{space}exclusion"))) == 2, "no file brings others"


def test_without_mvn_each_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, central: list[str]) -> None:
    monkeypatch.setattr(lock, "mvn_serves", lambda: False)
    found = get(tmp_path, Mvn({}))
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"one-1.jar": b"one", "two-2-exec.jar": b"two"}
    assert len(central) == 2 and not (tmp_path / "partial").exists()


def test_what_mvn_did_not_get_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, central: list[str]
) -> None:
    monkeypatch.setattr(lock, "mvn_serves", lambda: True)
    notes: list[str] = []
    get(tmp_path, Mvn({"a/b/one/1/one-1.jar": b"one"}, status=1), notes)
    assert [url.rpartition("/")[2] for url in central] == ["two-2-exec.jar"]
    assert any("Could not resolve dependencies" in note for note in notes)


def test_a_file_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "mvn_serves", lambda: True)
    with pytest.raises(CorruptArtifact, match=r"one-1\.jar: its sha256 is"):
        get(tmp_path, Mvn({**CONTENT, "a/b/one/1/one-1.jar": b"another"}))


def test_the_lock_of_kafka_holds_the_broker_and_its_tools() -> None:
    version = load().versions["kafka"]
    (source,) = load().artifact("kafka").sources
    assert isinstance(source, Jars)
    names = {PurePosixPath(path).name for path, _ in source.files}
    assert {f"kafka_2.13-{version}.jar", f"kafka-tools-{version}.jar", f"kafka-clients-{version}.jar"} <= names
    assert len(names) == len(source.files), "two files have one name"
    assert load(versions={"kafka": version}).artifact("kafka").sources == (source,)


def test_a_lock_that_cannot_be_used_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        lock.read_lock(tmp_path / "jars.lock")
    (tmp_path / "jars.lock").write_text("0123  a.jar\n")
    with pytest.raises(InputError, match="not a SHA-256 and a path"):
        lock.read_lock(tmp_path / "jars.lock")
    with pytest.raises(InputError, match=r"no source has all of kafka 4\.0\.0"):
        load(versions={"kafka": "4.0.0"})


def test_a_lock_of_another_version_is_said(tmp_path: Path) -> None:
    import shutil

    for folder in ("toolchain", "maven"):
        shutil.copytree(LIB / folder, tmp_path / folder)
    path = tmp_path / "maven/kafka/jars.lock"
    version = load().versions["kafka"]
    path.write_text(path.read_text().replace(f"/{version}/", "/9.9.9/"))
    with pytest.raises(InputError, match=f"the catalogue has kafka {version}, maven/kafka/jars.lock has not"):
        load(lib=tmp_path)


def test_progress_counts_files() -> None:
    assert "3 of 9 files" in Progress("kafka", "download", 3, 9, "files", 2.0).line()
