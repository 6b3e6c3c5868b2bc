"""The cache's folder: whose it is, and that nothing but stackbook's is ever removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeHost
from stackbook.app import cache_use, cli, reset
from stackbook.artifacts import cache_folder
from stackbook.artifacts.store import Store
from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.core.locks import Lock

PS = "podman ps -a --filter label=stackbook.lab --format json"
NOBODY = {PS: "[]"}


def photos(folder: Path) -> Path:
    """Somebody's own folder."""
    folder.mkdir(parents=True)
    (folder / "holiday.jpg").write_text("a photo")
    (folder / "files").mkdir()
    (folder / "files" / "letter.txt").write_text("a letter")
    return folder


def test_a_new_cache_is_marked_as_one_of_stackbooks(tmp_path: Path) -> None:
    Store(tmp_path / "cache")
    lines = (tmp_path / "cache" / "CACHEDIR.TAG").read_text().splitlines()
    assert lines[0] == "Signature: 8a477f597d28d172789f06886806bc55"  # the first 43 bytes, says bford.info/cachedir
    assert cache_folder.marked(tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    Store(tmp_path / "empty")
    assert cache_folder.marked(tmp_path / "empty")
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    Store(tmp_path / "disk")
    assert cache_folder.remove(tmp_path / "disk") == ["lost+found"]


def test_somebodys_folder_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    for tag in ("", "Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n"):
        if tag:
            (folder / "CACHEDIR.TAG").write_text(tag)
        before = sorted(folder.rglob("*"))
        for attempt in (Store, cache_folder.remove):
            with pytest.raises(
                InputError, match=r"is not a cache of stackbook: it has .*holiday.jpg.* — set STACKBOOK_CACHE"
            ):
                attempt(folder)
        assert sorted(folder.rglob("*")) == before


def test_a_cache_from_before_there_was_a_marker_is_adopted(tmp_path: Path) -> None:
    for name in cache_folder.LAYOUT:
        (tmp_path / "cache" / name).mkdir(parents=True)
    Store(tmp_path / "cache")
    assert cache_folder.marked(tmp_path / "cache")


@pytest.mark.parametrize(
    "line",
    [
        "# This file is a cache directory tag created by stackbook (stackbook-cache-1).",
        "# This folder is the cache of stackbook.",
    ],
)
def test_a_cache_that_was_marked_before_is_known_by_either_line(tmp_path: Path, line: str) -> None:
    """A file from the wild, to the letter: the text of today may change, what was written stays."""
    (tmp_path / "CACHEDIR.TAG").write_text(f"Signature: 8a477f597d28d172789f06886806bc55\n{line}\n")
    assert cache_folder.marked(tmp_path)
    Store(tmp_path)


def test_a_marker_that_is_a_link_is_none(tmp_path: Path) -> None:
    Store(tmp_path / "cache")
    folder = photos(tmp_path / "photos")
    (folder / "CACHEDIR.TAG").symlink_to(tmp_path / "cache" / "CACHEDIR.TAG")
    assert not cache_folder.marked(folder)


def test_only_the_cache_is_removed_and_what_is_left_is_named(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    Store(root)
    module = root / "build" / "gomod" / "example.org"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module x")
    module.chmod(0o500)
    elsewhere = photos(tmp_path / "photos")
    (root / "logs").rmdir()
    (root / "logs").symlink_to(elsewhere)
    (root / "mine.txt").write_text("kept by the user")
    assert cache_folder.remove(root) == ["mine.txt"]
    assert [p.name for p in root.iterdir()] == ["mine.txt"]
    assert (elsewhere / "holiday.jpg").exists()
    (root / "mine.txt").unlink()
    Store(root)
    assert cache_folder.remove(root) == []
    assert not root.exists()
    assert cache_folder.remove(root) == []


def test_a_cache_that_another_lab_uses_stays(home: Path) -> None:
    Store(paths.cache())
    cache_use.demand_removable("mine", FakeHost(NOBODY))
    entries = [{"Labels": {"stackbook.lab": "mine"}}, {"Labels": {"stackbook.lab": "theirs"}}]
    with pytest.raises(InputError, match="the lab 'theirs' uses the cache — reset that lab first"):
        cache_use.demand_removable("mine", FakeHost({PS: json.dumps(entries)}))
    cache_use.demand_removable("mine", FakeHost({PS: json.dumps(entries[:1])}))
    with pytest.raises(InputError, match="cannot open store — leave out --cache"):
        cache_use.demand_removable("mine", FakeHost({PS: (125, "", "Error: cannot open store\n")}))


def test_a_cache_that_a_run_or_a_download_works_on_stays(home: Path) -> None:
    store = Store(paths.cache())
    with Lock(paths.states() / "mine.lock").attempt():
        cache_use.demand_removable("mine", FakeHost(NOBODY))
    with Lock(paths.states() / "theirs.lock").attempt(), pytest.raises(InputError, match="a run of the lab 'theirs'"):
        cache_use.demand_removable("mine", FakeHost(NOBODY))
    with store.lock("go").attempt(), pytest.raises(InputError, match="go is being added to the cache"):
        cache_use.demand_removable("mine", FakeHost(NOBODY))
    cache_use.demand_removable("mine", FakeHost(NOBODY))


def test_reset_refuses_somebodys_folder_before_anything_is_changed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(reset, "reset", lambda *a, **_: asked.append(a) or [])
    monkeypatch.setattr(cli, "become_root", lambda *_: None)
    monkeypatch.setattr(cache_use, "_containers_of_others", lambda *_: [])
    folder = photos(home / "photos")
    monkeypatch.setenv("STACKBOOK_CACHE", str(folder))
    assert cli.main(["reset", "--cache"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert asked == [] and (folder / "files" / "letter.txt").exists()
    monkeypatch.setenv("STACKBOOK_CACHE", str(home / "cache"))
    Store(paths.cache())
    (paths.cache() / "mine.txt").write_text("kept by the user")
    assert cli.main(["reset", "--cache"]) == 0
    assert "still there: mine.txt" in capsys.readouterr().out
