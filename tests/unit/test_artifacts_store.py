"""The cache: content addressed, verified when used, shared by processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from stackbook.artifacts.cache_folder import remove_folder
from stackbook.artifacts.job_locks import JobLock
from stackbook.artifacts.store import Entry, Store
from stackbook.core.errors import WaitTimeout
from stackbook.core.progress import Progress

SPAWN = multiprocessing.get_context("spawn")


def add(store: Store, name: str = "tool", key: str = "k1", text: str = "content", kind: str = "file") -> Entry:
    with store.temporary("test") as folder:
        (folder / "made").write_text(text)
        return store.add_file(
            folder / "made", name=name, key=key, source="registry", version="1", seconds=2.0, kind=kind
        )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> Store:
    return Store(tmp_path / "cache", say=said.append)


def test_a_file_has_its_own_name_and_runs(store: Store) -> None:
    entry = add(store)
    found = store.find("tool", ["other", "k1"])
    assert found == entry
    assert store.path(entry).name == "tool"
    assert os.access(store.path(entry), os.X_OK)
    assert store.path(entry).samefile(store.root / "blobs/sha256" / entry.digest[:2] / entry.digest)
    assert store.find("tool", ["k2"]) is None


def test_an_archive_is_named_by_its_digest(store: Store) -> None:
    entry = add(store, kind="archive")
    assert store.path(entry).name == entry.digest


@pytest.mark.parametrize("text", ["tampered", "longer than it was"])
def test_changed_content_is_found_dropped_and_said(store: Store, said: list[str], text: str) -> None:
    path = store.path(add(store))
    path.write_text(text)
    assert store.find("tool", ["k1"]) is None
    assert not path.exists()
    assert "dropped from the cache" in said[0]
    assert store.find("tool", ["k1"]) is None
    assert len(said) == 1


def test_a_change_that_keeps_size_and_time_is_found_by_verify(store: Store, said: list[str]) -> None:
    path = store.path(add(store, text="content"))
    stat = path.stat()
    path.write_text("cOntent")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.find("tool", ["k1"]) is not None
    assert store.find("tool", ["k1"], verify=True) is None
    assert "sha256" in said[0]


def test_the_whole_content_is_compared_once_per_boot(store: Store, said: list[str]) -> None:
    entry = add(store, text="content")
    path = store.path(entry)
    stat = path.stat()
    path.write_text("cOntent")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index = store.root / "index/tool/k1.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "verified": "an earlier boot"}))
    assert store.find("tool", ["k1"]) is None


def test_a_touched_file_that_is_right_stays(store: Store, said: list[str]) -> None:
    os.utime(store.path(add(store)), ns=(1, 1))
    assert store.find("tool", ["k1"]) is not None
    assert said == []


def test_missing_content_and_a_broken_index_are_missing(store: Store, said: list[str]) -> None:
    entry = add(store)
    (store.root / "blobs/sha256" / entry.digest[:2] / entry.digest).unlink()
    store.path(entry).unlink()
    assert store.find("tool", ["k1"]) is None
    (store.root / "index/tool/k1.json").write_text("{")
    assert store.find("tool", ["k1"]) is None


def test_a_deleted_link_is_made_again(store: Store) -> None:
    entry = add(store)
    store.path(entry).unlink()
    assert store.find("tool", ["k1"]) == entry
    assert store.path(entry).read_text() == "content"


def test_old_recipes_are_forgotten_with_their_contents(store: Store) -> None:
    for number in range(4):
        add(store, key=f"k{number}", text=f"content {number}")
    assert [entry.key for entry in store.entries("tool")] == ["k3", "k2"]
    assert len(list((store.root / "blobs").rglob("*/*/*"))) == 2


def test_what_a_killed_process_left_is_removed(store: Store) -> None:
    (store.root / "tmp/get-99999999-abc").mkdir()
    with store.temporary("mine") as folder:
        Store(store.root)
        assert list((store.root / "tmp").iterdir()) == [folder]


def test_a_folder_with_a_mount_below_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left/proc").mkdir(parents=True)
    line = f"36 35 98:0 / {tmp_path}/left/proc rw - proc proc rw\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: line if self.name == "mountinfo" else read(self, *a, **k)
    )
    assert not remove_folder(tmp_path / "left")
    assert (tmp_path / "left/proc").exists()
    line = "36 35 98:0 / /proc rw - proc proc rw\n"
    assert remove_folder(tmp_path / "left")


def test_content_that_another_entry_has_is_kept(store: Store) -> None:
    entry = add(store)
    add(store, name="twin", key="t")
    store.drop(entry)
    assert store.find("twin", ["t"]) is not None


def test_a_tree_is_verified_too(store: Store, said: list[str]) -> None:
    with store.temporary("test") as folder:
        (folder / "tree/bin").mkdir(parents=True)
        (folder / "tree/bin/go").write_text("go")
        entry = store.add_tree(folder / "tree", name="go", key="k", source="registry", version="1", seconds=1)
    assert (store.path(entry) / "bin/go").read_text() == "go"
    (store.path(entry) / "bin/go").write_text("no")
    assert store.find("go", ["k"], verify=True) is None
    assert not store.path(entry).exists()


def test_estimates_are_medians_of_what_was_measured(store: Store) -> None:
    assert store.estimate("go:istio", 300) == 300
    for seconds in (100, 900, 120):
        store.record_seconds("go:istio", seconds)
    assert store.estimate("go:istio", 300) == 120


def _hold(folder: str, seconds: float, taken) -> None:
    with JobLock(Path(folder), "job").job("job", report=lambda _: None, deadline=5) as report:
        report(Progress("job", "build", 3, 10, "packages", seconds=1, remaining=7))
        taken.set()
        time.sleep(seconds)


@pytest.mark.slow
def test_a_waiter_sees_what_the_holder_does_and_then_gets_the_lock(tmp_path: Path) -> None:
    taken = SPAWN.Event()
    holder = SPAWN.Process(target=_hold, args=(str(tmp_path), 1.0, taken))
    holder.start()
    assert taken.wait(10)
    seen: list[Progress] = []
    lock = JobLock(tmp_path, "job")
    record = lock.holder()
    assert record is not None
    assert record["pid"] == holder.pid
    with lock.job("job", report=seen.append, deadline=10):
        assert lock.holder() is not None
    assert seen
    assert {progress.phase for progress in seen} == {"wait"}
    assert f"process {holder.pid}" in seen[0].message
    assert lock.holder() is None
    holder.join()


def test_a_dead_holder_is_taken_over_from(tmp_path: Path) -> None:
    taken = SPAWN.Event()
    holder = SPAWN.Process(target=_hold, args=(str(tmp_path), 60.0, taken))
    holder.start()
    assert taken.wait(10)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    with JobLock(tmp_path, "job").job("job", report=lambda _: None, deadline=10):
        pass
    holder.join()


def test_waiting_has_a_deadline_and_says_for_whom(tmp_path: Path) -> None:
    lock = JobLock(tmp_path, "job")
    with lock.job("job", report=lambda _: None, deadline=1), pytest.raises(WaitTimeout) as caught:  # noqa: SIM117
        with JobLock(tmp_path, "job").job("other", report=lambda _: None, deadline=0.1):
            pass
    assert f"job: building, by process {os.getpid()}" in str(caught.value)


def _add_many(root: str, number: int) -> None:
    store = Store(Path(root))
    for turn in range(60):
        add(store, key=f"k{turn % 3}", text=f"content {turn % 3}")
        store.find("tool", [f"k{turn % 3}"], verify=True)


@pytest.mark.slow
def test_two_processes_share_a_cache(store: Store) -> None:
    workers = [SPAWN.Process(target=_add_many, args=(str(store.root), number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    entries = store.entries("tool")
    assert entries
    assert all(store.find("tool", [entry.key], verify=True) for entry in entries)
