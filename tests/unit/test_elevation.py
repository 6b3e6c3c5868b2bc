"""Under sudo the user's environment is there, and nothing of it stood on a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stackbook.app import elevation

SECRET = {
    "PIP_INDEX_URL": "https://me:hunter22x@index.invalid/simple",
    "https_proxy": "http://me:hunter22x@proxy.invalid:3128",
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        return elevation.command("/usr/bin/sudo", SECRET, ["list", "a b"])
    finally:
        os.umask(before)


def test_the_command_line_has_the_words_and_a_file_that_only_the_user_reads(written: list[str]) -> None:
    assert written[0] == "/usr/bin/sudo" and written[-2:] == ["list", "a b"]
    assert "hunter22x" not in " ".join(written)
    file = Path(written[-3])
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_who_is_started_has_the_environment_and_leaves_no_file(written: list[str], tmp_path: Path) -> None:
    (tmp_path / "stackbook").mkdir()
    (tmp_path / "stackbook" / "__init__.py").touch()
    shown = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    (tmp_path / "stackbook" / "__main__.py").write_text(shown)
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "SUDO_UID": str(os.getuid()),
        "PIP_INDEX_URL": "roots",
    }
    done = subprocess.run(written[1:], env=env, capture_output=True, text=True, check=True)
    words, seen = json.loads(done.stdout)
    assert words == ["list", "a b"]
    assert {**SECRET, "SUDO_UID": str(os.getuid())}.items() <= seen.items()
    assert not Path(written[-3]).parent.exists()


@pytest.mark.parametrize("wrong", ["readable", "a link", "somebody else's"])
def test_a_file_that_others_could_have_made_is_not_taken(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = tmp_path / "own" / elevation.NAME, tmp_path / "other"
    file.parent.mkdir()
    other.write_text("{}")
    other.chmod(0o600)
    if wrong == "a link":
        file.symlink_to(other)
    else:
        file.write_text("{}")
        file.chmod(0o644 if wrong == "readable" else 0o600)
    if wrong == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4321)
    with pytest.raises(OSError, match=r"only its owner|symbolic links"):
        elevation.taken(file)
    file.unlink()
    file.write_text("{}")
    file.chmod(0o600)
    monkeypatch.undo()
    assert elevation.taken(file) == {}
    assert sys.flags.isolated == 0
