"""Snapshots on the disk: what is put into one comes out again, and one that is not whole is refused before anything is changed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.app import life_commands
from stackbook.app.snapshots import archive, listing, manifest, nearest, restore, store
from stackbook.app.snapshots.manifest import Manifest, Part
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.artifacts.digests import sha256_of
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import HostUnfit, InputError, StackbookError, WaitTimeout

pytestmark = pytest.mark.usefixtures("home")


def made(name: str = "good", *, proved: dict[str, str] | None = None, profile: Profile | None = None) -> Path:
    """A snapshot with two small parts."""
    kept = Store("stackbook")
    folder = kept.begin(name)
    parts = []
    for number in range(2):
        file = folder / f"m{number}-root.tar.zst"
        file.write_bytes(bytes([number]) * 1000)
        parts.append(Part(f"m{number}", "root", file.name, 1000, sha256_of(file), 5000))
    lab = manifest.of_profile(profile or Profile())
    Manifest(name, "20261127T201500Z", lab, "image:1", "i", proved or {}, tuple(parts)).write(folder)
    return kept.finish(name)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# files


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "deep" / "file").write_text("text")
    (source / "deep" / "file").chmod(0o4711)
    os.link(source / "deep" / "file", source / "same")
    (source / "link").symlink_to("/nowhere")
    with (source / "sparse").open("wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
    os.utime(source / "deep" / "file", ns=(1, 1_234_567_891))
    if root := os.geteuid() == 0:
        os.mknod(source / "whiteout", stat.S_IFCHR, 0)  # how overlay file systems hide what is below
        os.setxattr(source / "deep", "trusted.overlay.opaque", b"y")
        os.chown(source / "link", 4711, 815, follow_symlinks=False)
    old = os.umask(0)
    try:
        assert archive.collect(source, tmp_path / "p.tar", timeout=20) < 1_000_000, "holes are not written"
        assert permissions(tmp_path / "p.tar") == 0o600
        packed = archive.compress(tmp_path / "p.tar", tmp_path / "p.tar.zst", timeout=20)
    finally:
        os.umask(old)
    assert permissions(tmp_path / "p.tar.zst") == 0o600
    assert packed.size == (tmp_path / "p.tar.zst").stat().st_size < 1_000_000
    assert packed.sha256 == sha256_of(tmp_path / "p.tar.zst") and not (tmp_path / "p.tar").exists()
    archive.unpack(tmp_path / "p.tar.zst", target, timeout=20)
    assert (target / "same").samefile(target / "deep" / "file")
    assert permissions(target / "same") == 0o4711 and (target / "same").stat().st_mtime_ns == 1_234_567_891
    assert (target / "link").readlink() == Path("/nowhere")
    assert (target / "sparse").read_bytes().endswith(b"\0end") and (target / "sparse").stat().st_blocks < 1000
    if root:
        assert stat.S_ISCHR((target / "whiteout").stat().st_mode)
        assert os.getxattr(target / "deep", "trusted.overlay.opaque") == b"y"
        assert (target / "link").lstat().st_uid == 4711


def test_what_cannot_be_packed_or_unpacked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StackbookError, match=r"tar failed: .*No such file"):
        archive.collect(tmp_path / "none", tmp_path / "p", timeout=20)
    (tmp_path / "bad").write_bytes(b"no archive")
    with pytest.raises(StackbookError, match="zstd failed"):
        archive.unpack(tmp_path / "bad", tmp_path, timeout=20)
    with (
        pytest.raises(WaitTimeout, match=r"timed out .* sleep and cat to end"),
        archive._pipe([["sleep", "60"], ["cat"]], 0.1) as out,
    ):
        out.read()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostUnfit, match="zstd is not installed — apt-get install zstd"):
        archive.unpack(tmp_path / "bad", tmp_path, timeout=20)


# the manifest


def test_a_manifest_says_what_was_said(tmp_path: Path) -> None:
    folder = made(proved={"01-machines": "k"})
    found = manifest.read(folder)
    assert (found.name, found.size, found.content, found.proved) == ("good", 2000, 10000, {"01-machines": "k"})
    found.demand_fitting(Profile())
    assert permissions(folder) == permissions(folder.parent) == 0o700
    assert permissions(folder / manifest.FILE) == 0o600


def changed(folder: Path, **values: Any) -> None:
    data = json.loads((folder / manifest.FILE).read_text())
    (folder / manifest.FILE).write_text(json.dumps(data | values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    path.write_bytes(b"\7" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: changed(f, format=9), "has format 9, but this stackbook .* reads format 1 — use the stackbook that saved"),
        (lambda f: changed(f, image="other"), "is damaged: its manifest.json cannot be read"),
        (lambda f: cut(f / manifest.FILE), "is damaged: its manifest.json cannot be read"),
        (lambda f: (f / manifest.FILE).unlink(), r"is damaged: its manifest.json cannot be read \(No such file"),
        (lambda f: (f / manifest.FILE).write_text("[]"), "is damaged: its manifest.json cannot be read"),
        (lambda f: cut(f / "m1-root.tar.zst"), "is damaged: m1-root.tar.zst has 100 bytes of 1000 — stackbook snapshot remove good"),
        (lambda f: flip(f / "m0-root.tar.zst"), "is damaged: m0-root.tar.zst has changed since it was saved"),
        (lambda f: (f / "m0-root.tar.zst").unlink(), "is damaged: m0-root.tar.zst is missing"),
    ],
    ids=["version", "changed", "cut", "none", "no object", "part cut", "part changed", "part missing"],
)  # fmt: skip
def test_what_is_not_whole_is_refused_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, harm: Any, said: str
) -> None:
    harm(made())
    monkeypatch.setattr(restore, "Embedded", lambda profile: None)  # nobody to be told anything
    with pytest.raises(InputError, match=said) as refused:
        restore.restore(Profile(), "good", say=lambda text: None)
    assert "\n" not in str(refused.value)
    assert Store("stackbook").restoring == ""


def test_a_snapshot_is_called_as_its_folder() -> None:
    """An error that says what to remove must not name another one."""
    folder = made().rename(Store("stackbook").folder / "copy")
    cut(folder / "m0-root.tar.zst")
    with pytest.raises(InputError, match=r"the snapshot 'copy' is damaged: .* — stackbook snapshot remove copy"):
        store.verify(folder, manifest.read(folder))


def test_a_snapshot_of_another_lab_is_refused() -> None:
    folder = made(profile=Profile(kubernetes_version="1.30.0"))
    with pytest.raises(InputError, match=r"with another kubernetes_version: 1.30.0, but the profile has 1\.3"):
        manifest.read(folder).demand_fitting(Profile())


# the folder


def test_names_are_looked_up_and_checked() -> None:
    kept = Store("stackbook")
    with pytest.raises(InputError, match="the lab 'stackbook' has no snapshot 'god' — available snapshots: none"):
        kept.path("god")
    made()
    with pytest.raises(InputError, match="has no snapshot 'god' — did you mean 'good'"):
        kept.path("god")
    with pytest.raises(InputError, match="there is a snapshot 'good' already — choose another name"):
        kept.demand_new("good")
    for bad in ("", "..", "../x", "A", ".new-x", "x" * 60, "a b"):
        with pytest.raises(InputError, match="is not a valid name for a snapshot"):
            kept.demand_new(bad)


def test_half_a_snapshot_is_none_and_goes() -> None:
    kept = Store("stackbook")
    half = kept.begin("half")
    (half / "m.tar.zst").write_text("x")
    assert kept.names() == []
    made()
    assert kept.names() == ["good"] and not half.exists()
    assert kept.remove("good") > 2000
    assert not kept.folder.exists()


def test_a_list_says_what_is_wrong_with_one() -> None:
    assert listing.lines(Profile()) == [
        "the lab 'stackbook' has no snapshots: stackbook snapshot save NAME creates one"
    ]
    made("b-bad")
    (Store("stackbook").folder / "b-bad" / manifest.FILE).write_text("{")
    made("a-good", proved={"01-machines": "k", "02-kubeadm": "k"})
    Store("stackbook").note_restoring("a-good")
    _, good, bad, note = listing.lines(Profile())
    assert good.split() == ["a-good", "2026-11-27", "20:15", "0.00", "GB", "01-machines", "to", "02-kubeadm"]
    assert "'b-bad' is damaged" in bad
    assert note == "the restore of 'a-good' was interrupted: stackbook snapshot restore a-good"


def test_a_reset_keeps_snapshots_unless_they_are_named() -> None:
    assert life_commands.snapshots_after_reset(Profile(), remove=False) == []
    folder = made()
    (said,) = life_commands.snapshots_after_reset(Profile(), remove=False)
    assert str(folder.parent) in said and "good" in said and "stackbook reset --snapshots" in said
    assert life_commands.snapshots_after_reset(Profile(), remove=True) == ["✓ snapshot 'good' is removed"]
    assert not folder.parent.exists()


def test_a_snapshot_is_not_removed_under_a_run() -> None:
    folder = made()
    with only_run("stackbook"), pytest.raises(InputError, match="another run uses the lab"):
        listing.remove(Profile(), "good")
    assert folder.exists()


def test_too_little_room_is_said_before(tmp_path: Path) -> None:
    store.demand_space(tmp_path / "new" / "folder", 1, "the snapshot")
    with pytest.raises(
        HostUnfit, match=r"the snapshot needs 1000000.0 GB at .*, but only .* GB are free — free space there"
    ):
        store.demand_space(tmp_path, 10**15, "the snapshot")


def test_what_was_written_is_given_back_with_the_state() -> None:
    with only_run("stackbook"):
        folder = made()
    assert folder.parent in paths.written()


# the nearest


def test_the_nearest_has_the_most_of_the_wanted_chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.proofs, "key", lambda lab, instance=None: f"{lab.chapter.number}{instance}")
    monkeypatch.setattr(nearest, "Embedded", lambda profile: SimpleNamespace(containers=lambda: {}))
    made("a", proved={"01-machines": "01i"})
    made("b", proved={"01-machines": "01i", "02-kubeadm": "02i", "05-istio": "another"})
    made("c", proved={"01-machines": "01i", "02-kubeadm": "02i", "03-flannel": "another", "12-logs": "12i"})
    said: list[str] = []
    asked = {"first": "", "last": "05", "only": (), "parameters": {}, "say": said.append}
    assert nearest.choose(Profile(), **asked) == "b"
    assert "'b': it has 2 of" in said[0]
    state = paths.state("stackbook")
    (state / "proved.json").write_text(json.dumps({"01-machines": "01x", "02-kubeadm": "02x"}))
    (state / "instance").write_text("x\n")
    assert nearest.choose(Profile(), **asked) == "b", "there are no machines: what was proved on them is no more"
    monkeypatch.setattr(nearest, "Embedded", lambda profile: SimpleNamespace(containers=lambda: {"m": "running"}))
    assert nearest.choose(Profile(), **asked) == ""
    assert said[-1] == "no snapshot has more proved chapters than the lab itself, so nothing is restored"
