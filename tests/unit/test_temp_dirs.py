"""Temporary folders go, whoever made them and however that ended."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stackbook.cluster.kube import CREDENTIALS
from stackbook.core import temp_dirs
from stackbook.core.locks import born


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_its_block(elsewhere: Path) -> None:
    with temp_dirs.folder("trial") as made:
        assert made.parent == elsewhere
        assert made.stat().st_mode & 0o77 == 0
    assert not made.exists()


def test_what_a_killed_process_left_goes_with_the_next(elsewhere: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = elsewhere / f"stackbook-trial-{ended.pid}-7-abc123"
    of_another_name = elsewhere / f"stackbook-other-{ended.pid}-7-abc123"
    still_used = elsewhere / f"stackbook-trial-{os.getpid()}-{born(os.getpid())}-abc123"
    left_by_an_older_one = elsewhere / f"stackbook-trial-{os.getpid()}-7-abc123"
    foreign = elsewhere / "stackbook-trial-notes-x"
    for path in (left, left_by_an_older_one, of_another_name, still_used, foreign):
        (path / "inside").mkdir(parents=True)
    with temp_dirs.folder("trial"):
        assert not left.exists() and not left_by_an_older_one.exists()
        assert of_another_name.exists() and still_used.exists() and foreign.exists()


def test_reset_removes_those_of_every_name_but_never_what_is_mounted(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [elsewhere / f"stackbook-{name}-{ended.pid}-7-abc_123" for name in ("trial", "release")]
    mounted = elsewhere / f"stackbook-engine-{ended.pid}-7-abc123"
    still_used = elsewhere / f"stackbook-trial-{os.getpid()}-{born(os.getpid())}-abc123"
    foreign = elsewhere / "stackbook-my-own-7-notes"
    for path in (*left, mounted, still_used, foreign):
        (path / "inside").mkdir(parents=True)
    monkeypatch.setattr(temp_dirs, "_mount_points", lambda: [Path("/"), mounted / "inside"])
    assert sorted(temp_dirs.sweep_all()) == sorted(path.name for path in left)
    assert not any(path.exists() for path in left)
    assert mounted.exists() and still_used.exists() and foreign.exists()
    assert sorted(path.name for path in temp_dirs.abandoned("[a-z]+")) == [mounted.name]


def test_mount_points_are_read_with_their_escapes() -> None:
    assert {Path("/"), Path("/proc")} <= set(temp_dirs._mount_points())
    assert temp_dirs._mount_points("tmpfs /tmp/my\\040own tmpfs rw 0 0\n") == [Path("/tmp/my own")]


@pytest.mark.parametrize("killed", [False, True])
def test_the_key_of_the_apis_client_goes_with_its_process_or_with_the_next(elsewhere: Path, killed: bool) -> None:
    """A kernel is often killed: what its client had as files must not stay."""
    name = base64.b64encode(b"not a real key").decode()
    config = elsewhere / "kubeconfig"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": name}}],
        "users": [{"name": "me", "user": {"client-certificate-data": name, "client-key-data": name}}],
    }))  # fmt: skip
    code = (
        "import sys; from pathlib import Path; from stackbook.cluster.kube import Kube\n"
        "Kube(Path(sys.argv[1])).client; print('made', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(elsewhere)},
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "made\n"
    there = [path for path in elsewhere.rglob("*") if path.is_file() and path != config]
    assert {path.read_text() for path in there} == {"not a real key"}
    if killed:
        process.kill()
    process.communicate(timeout=30)
    left = [path for path in elsewhere.iterdir() if path != config]
    if killed:
        assert temp_dirs.sweep(CREDENTIALS) == [path.name for path in left] != []
    assert [path.name for path in elsewhere.iterdir()] == ["kubeconfig"]
