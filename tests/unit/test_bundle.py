"""The one file for a host that reaches nothing: what is written comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.app import bundle
from stackbook.artifacts import bundle_file
from stackbook.artifacts.bundle_file import Contents, Reader
from stackbook.artifacts.resolver import Resolver
from stackbook.artifacts.store import Store
from stackbook.core.errors import InputError


def filled(folder: Path) -> tuple[Store, Contents, Path]:
    """A cache with a file, an archive and a folder, and two files of Go's."""
    store = Store(folder / "cache")
    with store.temporary("test") as scratch:
        (scratch / "one").write_bytes(b"one" * 1000)
        one = store.add_file(scratch / "one", name="one", key="k1", source="release", version="1", seconds=1)
        (scratch / "two").write_bytes(b"two" * 5000)
        two = store.add_file(
            scratch / "two", name="two", key="k2", source="release", version="2", seconds=1, kind="archive"
        )
        tree = scratch / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin" / "run").write_text("#!/bin/sh\n")
        (tree / "bin" / "run").chmod(0o755)
        (tree / "bin" / "link").symlink_to("run")
        (tree / f"{'long' * 40}.txt").write_text("a name that does not fit into a tar's own field")
        three = store.add_tree(tree, name="three", key="k3", source="registry", version="3", seconds=1)
    modules = folder / "gomod"
    (modules / "cache" / "download" / "x").mkdir(parents=True)
    names = ("cache/download/x/v1.zip", "cache/download/x/v1.mod")
    for name in names:
        (modules / name).write_text(name)
    return store, Contents("embedded", ("00-preflight",), (one, two, three), tuple((n, len(n)) for n in names)), modules


def saved(folder: Path) -> tuple[Path, Store, Contents, Path]:
    store, contents, modules = filled(folder)
    target = folder / "lab.bundle"
    bundle_file.write(target, bundle_file.members(contents, store, modules))
    return target, store, contents, modules


def read(path: Path, into: Path) -> tuple[Store, int]:
    store = Store(into / "cache")
    reader = Reader.open(path)
    try:
        missing = [e for e in reader.contents.entries if not store.find(e.name, [e.key])]
        return store, reader.unpack(store, into / "gomod", wanted=missing)
    finally:
        reader.close()


def test_everything_comes_back(tmp_path: Path) -> None:
    path, old, contents, _ = saved(tmp_path)
    store, done = read(path, tmp_path / "there")
    assert done == 3
    for entry in contents.entries:
        found = store.find(entry.name, [entry.key], verify=True)
        assert found and replace(found, mtime_ns=0, verified="", made=0) == replace(
            entry, mtime_ns=0, verified="", made=0
        )
    one, _, three = contents.entries
    assert store.path(one).read_bytes() == old.path(one).read_bytes()
    assert store.path(three).joinpath("bin", "link").readlink() == Path("run")
    assert store.path(three).joinpath("bin", "run").stat().st_mode & 0o111
    assert (tmp_path / "there/gomod/cache/download/x/v1.zip").read_text() == "cache/download/x/v1.zip"


def test_what_is_there_is_not_read_again(tmp_path: Path) -> None:
    path, *_ = saved(tmp_path)
    _, first = read(path, tmp_path / "there")
    _, second = read(path, tmp_path / "there")
    assert (first, second) == (3, 0)


def test_the_same_components_give_the_same_bytes(tmp_path: Path) -> None:
    one, *_ = saved(tmp_path / "a")
    two, *_ = saved(tmp_path / "b")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_file_that_was_left_half_written_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("half")
    path, store, contents, modules = saved(folder)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    left = bytearray(whole[:cut] + data.draw(st.binary(max_size=20)))
    if left and data.draw(st.booleans()):
        left[data.draw(st.integers(0, len(left) - 1))] ^= 1
    path.unlink()
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(left)
    assert bundle_file.write(path, bundle_file.members(contents, store, modules)) == len(whole)
    assert path.read_bytes() == whole
    assert not partial.exists()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path, _, contents, _ = saved(folder)
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    try:
        store, done = read(path, folder / "there")
    except InputError as error:
        assert "\n" not in str(error)
        assert error.fix
        return
    assert done == 3
    for entry in contents.entries:
        assert store.find(entry.name, [entry.key], verify=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path, *_ = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"truncated|is not a bundle|is damaged") as caught:
        read(path, tmp_path / "there")
    assert "\n" not in str(caught.value)


def tar(path: Path, *members: tuple[str, bytes, bytes, str]) -> Path:
    """A tar of (name, content, type, target of a link)."""
    with tarfile.open(path, "w") as made:
        for name, content, kind, link in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, link
            made.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("trees/{d}/../../../evil", tarfile.REGTYPE, ""),
        ("trees/{d}/evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("trees/{d}/a/evil", tarfile.SYMTYPE, "../../../evil"),
        ("trees/{d}/evil", tarfile.LNKTYPE, "/etc/passwd"),
        ("trees/{d}/evil", tarfile.CHRTYPE, ""),
        ("modules/../../evil", tarfile.REGTYPE, ""),
        ("modules//etc/evil", tarfile.REGTYPE, ""),
        ("../evil", tarfile.REGTYPE, ""),
        ("evil", tarfile.REGTYPE, ""),
    ],
)
def test_nothing_leads_out_of_the_cache(tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    _, contents, _ = filled(tmp_path)
    text = contents.text()
    import hashlib

    head = f"stackbook-bundle-1/{hashlib.sha256(text).hexdigest()}.json"
    path = tar(tmp_path / "evil.bundle", (head, text, tarfile.REGTYPE, ""),
               (name.replace("{d}", contents.entries[2].digest), b"", kind, link))  # fmt: skip
    before = sorted(tmp_path.rglob("evil"))
    with pytest.raises(InputError, match="is damaged"):
        read(path, tmp_path / "there")
    assert sorted(tmp_path.rglob("evil")) == before


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    other = tar(tmp_path / "other.tar", ("readme", b"x", tarfile.REGTYPE, ""))
    newer = tar(tmp_path / "newer.tar", (f"stackbook-bundle-2/{'0' * 64}.json", b"{}", tarfile.REGTYPE, ""))
    for path, said in ((tmp_path / "nowhere", "no such"), (tmp_path, "director"), (text, "not a tar"), (other, "not a bundle"),
                       (newer, "has format 2, and this version reads 1")):  # fmt: skip
        with pytest.raises(InputError, match=f"(?i){said}") as caught:
            Reader.open(path)
        assert caught.value.fix and "\n" not in str(caught.value)


def test_a_bundle_of_another_version_is_refused_and_the_cache_stays(tmp_path: Path, home: Path) -> None:
    path, *_ = saved(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="saved by another version of stackbook: 3 of 3 components differ"):
        bundle.load(path, say=lambda _: None)
    assert Resolver.open().store.entries() == []


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match=r"free, but .* are needed"):
        bundle._demand_room(tmp_path / "not" / "there", 11)
    bundle._demand_room(tmp_path, 10)


def test_a_bundle_needs_no_image_that_can_be_put_together_from_its_files(home: Path) -> None:
    names = Resolver.open().catalogue.parts(["control-plane", "kubelet", "apps", "logs"])
    assert {"kube-apiserver", "etcd", "pause", "kubelet", "elasticsearch", "observability-rootfs"} <= set(names)
    assert len(names) == len(set(names))
    assert not [name for name in names if ":" in name]
