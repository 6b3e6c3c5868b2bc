"""SSH's sockets lie in a folder that nobody else gets into, are short enough, and are gone with their process."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackbook.core import temp_dirs
from stackbook.core.errors import InputError
from stackbook.core.redact import Secret
from stackbook.machines import ssh_sockets
from stackbook.machines.ssh_host import SSHHost

HOST = SSHHost(name="n", address="192.0.2.1", key=Path("/k"), known_hosts=Path("/h"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is nobody else's, and a process that has no folder for sockets yet."""
    base = tmp_path / "t"
    base.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(base))
    monkeypatch.setattr(ssh_sockets, "_LONGEST", 400)  # pytest's folders have long names
    for cached in (ssh_sockets._folder, temp_dirs.of_this_process):
        cached.cache_clear()
    yield base
    for cached in (ssh_sockets._folder, temp_dirs.of_this_process):
        cached.cache_clear()


def socket(host: SSHHost = HOST) -> Path:
    (word,) = [word for word in host._options() if word.startswith("ControlPath=")]
    return Path(word.removeprefix("ControlPath="))


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_folder_is_made_private_from_the_start(umask: int, temporary: Path) -> None:
    before = os.umask(umask)
    try:
        folder = socket().parent
    finally:
        os.umask(before)
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.geteuid()
    assert str(os.getpid()) in folder.name


def test_the_users_runtime_folder_is_taken_where_it_is_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert socket().parent.parent == runtime


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_runtime_folder_that_others_get_into_is_left_out(
    mode: int, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    runtime.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert socket().parent.parent == temporary


@pytest.mark.parametrize("wrong", ["readable", "writable", "a link", "somebody else's", "gone"])
def test_a_folder_that_is_not_ours_alone_any_more_is_refused_in_one_line(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = socket().parent
    if wrong in ("readable", "writable"):
        folder.chmod(0o750 if wrong == "readable" else 0o722)
    elif wrong == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4321)
    else:
        folder.rmdir()
        if wrong == "a link":
            (tmp_path / "other").mkdir(mode=0o700)
            folder.symlink_to(tmp_path / "other")
    with pytest.raises(InputError, match=r"cannot put the sockets of SSH into .*TMPDIR") as caught:
        HOST.run(["true"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["itself", "above"])
def test_where_others_could_put_a_folder_in_its_place_none_is_made(
    where: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_sockets, "bases", lambda: iter([temporary]))
    (temporary if where == "itself" else temporary.parent).chmod(0o777)
    with pytest.raises(InputError, match=r"no folder is safe .*is writable by other users.*TMPDIR") as caught:
        socket()
    assert "\n" not in str(caught.value)
    (temporary if where == "itself" else temporary.parent).chmod(
        0o1777
    )  # like /tmp: only the owner renames what is in it
    ssh_sockets._folder.cache_clear()
    assert socket().parent.parent == temporary


def test_a_socket_is_short_enough_for_the_kernel(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_sockets, "_LONGEST", 107)
    long = temporary / ("x" * 80)
    long.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    path = socket()
    assert path.parent.parent == Path("/tmp")
    # ssh binds the name with 17 letters more before it gives the socket its own (mux.c).
    assert len(os.fsencode(f"{path}.0123456789abcdef")) <= 107
    ssh_sockets._folder.cache_clear()
    monkeypatch.setattr(ssh_sockets, "bases", lambda: iter([long]))
    with pytest.raises(InputError, match="path of a socket in it would be too long"):
        socket()


@pytest.mark.parametrize("change", [{"user": "ubuntu"}, {"port": 23}, {"address": "192.0.2.2"}, {"key": Path("/other")},
                                    {"known_hosts": Path("/other")}])  # fmt: skip
def test_a_connection_is_shared_by_who_asks_for_the_very_same(change: dict[str, object]) -> None:
    assert socket(dataclasses.replace(HOST, name="other")) == socket(HOST)
    assert socket(dataclasses.replace(HOST, **change)) != socket(HOST)  # type: ignore[arg-type]


def test_at_the_end_the_connections_are_closed_and_the_folder_goes(tmp_path: Path) -> None:
    said = tmp_path / "said"
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    # It leaves a socket as the first connection does, and tells how it was asked to end.
    ssh.write_text(
        f"""#!/bin/sh
for word; do case "$word" in ControlPath=*) path="${{word#ControlPath=}}" ;; esac; done
case "$*" in *"-O exit"*) test -e "$path" && echo "$*" >> {said} ;; *) : > "$path" ;; esac
"""
    )
    ssh.chmod(0o755)
    code = (
        "from stackbook.machines.ssh_host import SSHHost\n"
        "for address in ('192.0.2.1', '192.0.2.2'):\n    host = SSHHost(name='n', address=address); host.run(['true'])\n"
        "print([w for w in host._options() if w.startswith('ControlPath=')][0])\n"
    )
    env = {**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}", "TMPDIR": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    last = Path(done.stdout.strip().removeprefix("ControlPath="))
    asked = said.read_text().splitlines()
    assert len(asked) == 2 and any(str(last) in line for line in asked)
    assert not last.parent.exists()


def test_a_secret_is_no_word_of_a_remote_command() -> None:
    word = Secret("hemlock-and-honey")
    for argv, env in ((["echo", word], {}), (["echo"], {"WORD": word})):
        with pytest.raises(TypeError, match="standard input"):
            HOST.run(argv, env=env)  # type: ignore[arg-type]
    for argv in (["echo", word.reveal()], ["sh", "-c", f"true {word.reveal()}"]):
        with pytest.raises(AssertionError, match="standard input"):
            HOST.run(argv)
