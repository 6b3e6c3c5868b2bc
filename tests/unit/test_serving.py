"""JupyterLab of a sudo user is that user's; its kernels, which enter the machines, are root's."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import kernel_helper
from stackbook.app.kernel_helper import Helper
from stackbook.app.serving import users
from stackbook.core.ownership import User
from stackbook.core.waiting import until

UID = 12345


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A helper for this very user, whose kernels are shell scripts; yields its socket and a connection file."""
    monkeypatch.setattr(kernel_helper.sys, "executable", str(tmp_path / "kernel"))
    (tmp_path / "kernel").write_text('#!/bin/sh\necho $$ >"$4.pid"\npwd >"$4.pwd"\nexec sleep "$(cat "$4")"\n')
    (tmp_path / "kernel").chmod(0o755)
    file = tmp_path / "kernel-1.json"
    file.write_text("60\n")
    file.chmod(0o600)
    helper = Helper(tmp_path / "s", os.geteuid())
    with helper.serving():
        yield helper.path, file


def begin(path: Path, file: Path, folder: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connection.connect(str(path))
    connection.sendall(json.dumps({"file": str(file), "folder": folder}).encode() + b"\n")
    return connection


def pid(file: Path) -> int:
    return int(
        until(lambda: (p := Path(f"{file}.pid")).exists() and p.read_text(), what="a kernel", timeout=20, every=0.05)
    )


def runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_kernel_lives_as_long_as_what_stands_for_it(asked: tuple[Path, Path], tmp_path: Path) -> None:
    path, file = asked
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection = begin(path, file, str(tmp_path))
    kernel = pid(file)
    assert Path(f"{file}.pwd").read_text().strip() == str(tmp_path)
    assert runs(kernel)
    connection.close()
    until(lambda: not runs(kernel), what="the kernel has ended", timeout=20, every=0.05)


def test_its_end_is_told(asked: tuple[Path, Path]) -> None:
    path, file = asked
    file.write_text("0\n")
    with begin(path, file, "/nowhere") as connection:
        assert connection.recv(100) == b"0"
    assert Path(f"{file}.pwd").read_text().strip() == "/"


def test_kernels_end_with_the_helper(tmp_path: Path, asked: tuple[Path, Path]) -> None:
    _, file = asked
    helper = Helper(tmp_path / "s2", os.geteuid())
    with helper.serving():
        connection = begin(helper.path, file, "/")
        kernel = pid(file)
    assert not runs(kernel)
    connection.close()


@pytest.mark.parametrize(
    "what", ["another user", "another's file", "a readable file", "a link", "nonsense", "too much"]
)
def test_nothing_else_is_started(what: str, asked: tuple[Path, Path], tmp_path: Path) -> None:
    path, file = asked
    helper = Helper(tmp_path / "s2", os.geteuid() + (what in ("another user", "another's file")))
    if what == "another user":
        if os.geteuid():
            pytest.skip("only root can leave a file of another user's")
        os.chown(file, helper.uid, -1)
    if what == "a readable file":
        file.chmod(0o644)
    if what == "a link":
        file.rename(tmp_path / "real")
        file.symlink_to(tmp_path / "real")
    with helper.serving(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path if what == "nonsense" else helper.path))
        text = json.dumps({"file": str(file), "folder": "/"}) if what != "nonsense" else "[]"
        text = "x" * 200_000 if what == "too much" else text
        try:
            connection.sendall(text.encode() + b"\n")
            answer = connection.recv(1000)
        except (BrokenPipeError, ConnectionResetError):  # it does not even read all of that
            answer = b"no kernel: "
    assert answer.startswith(b"no kernel: ")
    assert not Path(f"{file}.pid").exists()


def test_a_kernel_started_anew_waits_for_the_end_of_the_one_before(asked: tuple[Path, Path]) -> None:
    """It has the same ports."""
    path, file = asked
    first = begin(path, file, "/")
    before = pid(file)
    Path(f"{file}.pid").unlink()
    second = begin(path, file, "/")
    time.sleep(0.5)
    assert not Path(f"{file}.pid").exists()
    first.close()
    after = pid(file)
    assert after != before
    assert not runs(before)
    second.close()


def test_the_users_environment_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    found = users(User(os.getuid(), os.getgid()), {"HOME": "/x", "SUDO_UID": "1", "SUDO_COMMAND": "y", "LANG": "C"})
    assert found["HOME"] != "/x"
    assert found["LANG"] == "C"
    assert not [name for name in found if name.startswith("SUDO_")]


# The command line as sudo starts it, for a user that this host need not have.
SERVE = """\
import pwd, sys, types
entry = types.SimpleNamespace(pw_name="learner", pw_dir=sys.argv[1], pw_shell="/bin/sh")
pwd.getpwuid = lambda uid: entry
from stackbook.app import cli
sys.exit(cli.main(["notebooks", "--port", sys.argv[2], "--root", sys.argv[3]]))
"""


def python_for_others() -> bool:
    if os.geteuid():
        return False
    probe = [sys.executable, "-c", "import jupyterlab, ipykernel, stackbook"]
    try:
        return (
            subprocess.run(probe, user=UID, group=UID, extra_groups=[], capture_output=True, check=False).returncode
            == 0
        )
    except PermissionError:
        return False


def said_by(base: str, token: str, code: str) -> str:
    """What a new kernel of this server prints."""
    from tornado.ioloop import IOLoop
    from tornado.websocket import websocket_connect

    def call(method: str, path: str, data: bytes | None = None) -> Any:
        wish = urllib.request.Request(f"{base}{path}", data, {"Authorization": f"token {token}"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(wish, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    kernel = call("POST", "api/kernels", b'{"path": "notebooks"}')["id"]

    async def ask() -> str:
        url = f"{base.replace('http', 'ws', 1)}api/kernels/{kernel}/channels?token={token}"
        socket_ = await websocket_connect(url, connect_timeout=30)
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": "s",
            "username": "",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "allow_stdin": False, "store_history": False}
        await socket_.write_message(
            json.dumps(
                {
                    "header": header,
                    "parent_header": {},
                    "metadata": {},
                    "content": content,
                    "channel": "shell",
                    "buffers": [],
                }
            )
        )
        text = ""
        while True:
            message = json.loads(await socket_.read_message() or "{}")
            if message.get("msg_type") == "stream":
                text += message["content"]["text"]
            mine = message.get("parent_header", {}).get("msg_id") == header["msg_id"]
            if mine and message.get("msg_type") == "status" and message["content"]["execution_state"] == "idle":
                return text

    said = str(IOLoop(make_current=False).run_sync(ask, timeout=60))
    call("DELETE", f"api/kernels/{kernel}")
    return said


@pytest.mark.slow
def test_jupyterlab_is_not_roots_and_leaves_nothing_of_roots_in_home(tmp_path: Path) -> None:
    if not python_for_others():
        pytest.skip("this Python can be started by its owner only")
    home, root = tmp_path / "home", tmp_path / "root"
    (root / "notebooks").mkdir(parents=True)
    home.mkdir()
    for path in (home, root, root / "notebooks"):
        os.chown(path, UID, UID)
    for path in [tmp_path, *tmp_path.parents]:
        if path.name.startswith(("pytest", "popen", "test_")):
            path.chmod(path.stat().st_mode | 0o055)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STACKBOOK_", "XDG_", "JUPYTER"))}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(home), str(port), str(root)], text=True,
        env={**kept, "HOME": str(home), "SUDO_UID": str(UID), "SUDO_GID": str(UID)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    log: list[str] = []
    reading = threading.Thread(target=lambda: log.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
    reading.start()
    try:
        kept_in = str(until(
            lambda: (m := re.search(r"with the token is in (\S+)", "".join(log))) and m[1], what="JupyterLab's address", timeout=60,
            last=lambda: "".join(log)[-1000:],
        ))  # fmt: skip
        address = Path(kept_in).read_text()
        token = address.partition("?token=")[2].strip()
        port = int(address.partition("127.0.0.1:")[2].partition("/")[0])
        assert [path.stat().st_uid for path in (Path(kept_in), Path(kept_in).parent)] == [UID, UID]
        until(lambda: "is running at" in "".join(log), what="JupyterLab answers", timeout=60, every=0.2)
        listing = subprocess.run(["ps", "-eo", "uid,pgid,args"], capture_output=True, text=True, check=True).stdout
        mine = [line.split(None, 2) for line in listing.splitlines() if f" {process.pid} " in f"{line} "]
        lab = [words for words in mine if "jupyterlab" in words[2]]
        assert {int(words[0]) for words in lab} == {UID}
        assert token not in listing
        code = "import os; print(os.geteuid(), os.getcwd(), os.environ['MPLCONFIGDIR'])"
        said = said_by(f"http://127.0.0.1:{port}/", token, code)
        programs = home / ".local" / "state" / "stackbook" / ".programs"
        assert said.split() == ["0", str(root / "notebooks"), str(programs / "matplotlib")], "".join(log)[-2000:]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        finally:
            process.kill()
        reading.join(10)
        process.stdout.close()  # type: ignore[union-attr]
    assert process.returncode == 130, "".join(log)[-2000:]
    assert programs.is_dir()
    assert [str(p) for p in [*home.rglob("*"), *root.rglob("*")] if p.lstat().st_uid != UID] == []
    left = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert f"--port={port}" not in left
