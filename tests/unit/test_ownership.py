"""What changes hands under sudo, and what does not: tried with real files, as root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stackbook.app import cli, own_folders
from stackbook.artifacts.store import Store
from stackbook.core import ownership, paths

UID, GID = 54321, 54322
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def sudo(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root, called by a user with sudo; her home."""
    monkeypatch.setenv("SUDO_UID", str(UID))
    monkeypatch.setenv("SUDO_GID", str(GID))
    mine = home / "home"
    mine.mkdir()
    os.chown(mine, UID, GID)
    monkeypatch.setenv("HOME", str(mine))
    return mine


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def test_folders_below_home_are_the_users_from_the_start(sudo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("STACKBOOK_CACHE", "STACKBOOK_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    Store(paths.cache())
    paths.state("mine")
    for name in (".cache", ".cache/stackbook", ".local", ".local/state", ".local/state/stackbook/mine"):
        assert owner(sudo / name) == (UID, GID), name
    assert (sudo / ".local/state/stackbook/mine").stat().st_mode & 0o777 == 0o700


def test_a_folder_in_one_of_roots_is_the_users_and_those_above_it_are_not(sudo: Path, home: Path) -> None:
    ownership.make(home / "big" / "disk" / "cache")
    assert [owner(home / name)[0] for name in ("big", "big/disk", "big/disk/cache")] == [0, 0, UID]


def test_only_what_is_stackbooks_changes_hands(sudo: Path, home: Path) -> None:
    store = Store(paths.cache())
    paths.state("mine")
    run = paths.runs() / "20260101T000000Z"
    run.mkdir(parents=True)
    secret = home / "shadow"
    secret.write_text("root's own")
    stolen = [store.root / "logs" / "hard", paths.state("mine") / "hard"]
    for path in stolen:
        os.link(secret, path)
    (run / "link").symlink_to(secret)
    strangers = [paths.runs() / "notes.txt", paths.states() / "theirs", store.root / "mine.txt"]
    for path in strangers:
        path.write_text("a stranger's")
    other = store.root / "logs" / "another.log"
    other.write_text("of another user")
    os.chown(other, 777, 777)
    twice = [store.root / "files" / "tool", store.root / "blobs" / "tool"]
    twice[0].write_text("a program under two names")
    os.link(*twice)
    lock = paths.states() / "mine.lock"
    lock.touch()
    own_folders.give_back()
    for path in (run, run / "link", lock, *twice, store.root / "CACHEDIR.TAG", store.root / "locks"):
        assert owner(path) == (UID, GID), path
    for path in (secret, *stolen, *strangers):
        assert owner(path) == (0, 0), path
    assert owner(other) == (777, 777)


def test_another_file_system_is_not_entered(sudo: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(paths.cache())
    (store.root / "tmp" / "mount").mkdir()
    (store.root / "tmp" / "mount" / "inside").touch()
    there = (store.root / "tmp" / "mount").stat().st_ino
    look = os.stat

    def stat(*args, **options):
        found = look(*args, **options)
        if found.st_ino != there:
            return found
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]))

    monkeypatch.setattr(os, "stat", stat)
    own_folders.give_back()
    monkeypatch.undo()
    assert owner(store.root / "tmp" / "mount") == owner(store.root / "tmp" / "mount" / "inside") == (0, 0)
    assert owner(store.root / "tmp")[0] == UID


def test_a_cache_without_the_marker_stays_roots(sudo: Path) -> None:
    folder = paths.cache() / "logs"
    folder.mkdir(parents=True)
    own_folders.give_back()
    assert owner(folder) == owner(paths.cache()) == (0, 0)


@pytest.mark.parametrize("words", [["list"], ["run", "--only", "03", "-p", "ping", "5"], ["reset"]])
def test_every_command_gives_back_however_it_ends(
    sudo: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbook.app import reset

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reset, "reset", interrupted)
    Store(paths.cache())
    (paths.cache() / "logs" / "new.log").touch()
    assert cli.main(words) == {"list": 0, "run": 2, "reset": 130}[words[0]]
    assert owner(paths.cache() / "logs" / "new.log") == (UID, GID)


def test_root_itself_gives_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for uid in ("", "0"):
        monkeypatch.setenv("SUDO_UID", uid)
        monkeypatch.setenv("SUDO_GID", uid)
        assert ownership.user() is None


@pytest.mark.parametrize(
    ("variable", "words"), [("STACKBOOK_CACHE", ["fetch", "kubectl"]), ("STACKBOOK_STATE", ["status"])]
)
def test_a_folder_that_cannot_be_written_is_one_line(
    variable: str, words: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").touch()
    monkeypatch.setenv(variable, str(home / "file" / "stackbook"))
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{home}/file" in said and "Not a directory" in said
    assert f"— allow this user to read and write it, or set {variable} to another folder" in said
