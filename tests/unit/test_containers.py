"""The containers' engine: its settings, its images, its ports, and what it leaves. No engine is started."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from stackbook.core.errors import CheckFailed, HostUnfit, InputError
from stackbook.lessons.containers import engine, image_store, nameserver, namespaces, ports
from stackbook.lessons.containers.engine import Engine
from stackbook.lessons.containers.image_store import Wanted


def test_nothing_of_the_hosts_podman_is_in_the_settings_and_nothing_is_pulled(tmp_path: Path) -> None:
    folder = namespaces.Folder(tmp_path / "p", graph_root=tmp_path / "storage", image_stores=[tmp_path / "store"])
    folder.write()
    said = (folder.path / "containers.conf").read_text() + (folder.path / "storage.conf").read_text()
    assert f'graphroot = "{tmp_path}/storage"' in said and str(tmp_path / "store") in said
    assert "nofile=" in said and "nproc=" in said and "/var/lib/containers" not in said
    files = {name: Path(value) for name, value in folder.environment.items() if name.startswith("CONTAINERS_")}
    assert set(files) == {"CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF"}
    assert {path.parent for path in files.values()} == {folder.path} and all(path.is_file() for path in files.values())
    assert "blocked = true" in files["CONTAINERS_REGISTRIES_CONF"].read_text()
    words = namespaces.command(folder, "true")
    assert {"--net", "--mount", "--pid", "--kill-child"} <= set(words) and "mount -t tmpfs tmpfs /run" in words[-6]


def test_who_cannot_run_an_engine_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostUnfit, match=r"^only root can create namespaces for containers — run it with sudo$"):
        namespaces.demand()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, path: None if name == "podman" else f"/bin/{name}")
    with pytest.raises(HostUnfit, match=r"^podman not found, but containers need it — tools/setup\.sh installs it$"):
        namespaces.demand()


def test_an_engine_that_exits_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "unshare"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho no such storage; exit 5\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STACKBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(namespaces, "demand", lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(CheckFailed, match="the container engine exited with status 5: no such storage"),
        engine.running([]),
    ):
        raise AssertionError("the block ran")
    assert not list(tmp_path.glob("stackbook-engine-*"))


def test_a_running_engine_is_asked_on_its_socket(tmp_path: Path) -> None:
    runs = Engine(tmp_path, None, Path("/tmp/x/engine.sock"))  # type: ignore[arg-type]
    assert runs.host == "unix:///tmp/x/engine.sock" and not runs.listens()
    (tmp_path / "log").write_text("loaded")
    assert runs.said() == "loaded"


def test_what_a_killed_engine_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control groups of its containers are the host's; those of a container that runs, and of others, stay."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(engine, "_PATIENCE", 0.1)
    groups = tmp_path / "groups"
    monkeypatch.setattr(engine, "_CGROUPS", groups)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine, runs, other = (letter * 64 for letter in "abc")
    left = tmp_path / f"stackbook-engine-{ended.pid}-7-abc123"
    listed = left / "storage" / "overlay-containers" / "containers.json"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps([{"id": mine}, {"id": runs}]))
    gone = [groups / "libpod_parent" / f"libpod-{mine}", groups / "cpu" / "libpod_parent" / f"libpod-conmon-{mine}"]
    kept = [groups / "libpod_parent" / f"libpod-{other}", groups / "libpod_parent" / f"libpod-{runs}"]
    for path in (*gone, *kept):
        path.mkdir(parents=True)
    (kept[1] / "cgroup.procs").write_text("1")  # like a group with a process, it cannot be removed
    engine.sweep()
    assert not left.exists() and not any(path.exists() for path in gone) and all(path.exists() for path in kept)


def archive(path: Path, digest: str) -> Wanted:
    with tarfile.open(path, "w") as made:
        named = {"digest": digest, "annotations": {"io.containerd.image.name": "x/y:1"}}
        data = json.dumps({"manifests": [named]}).encode()
        entry = tarfile.TarInfo("index.json")
        entry.size = len(data)
        made.addfile(entry, io.BytesIO(data))
    return Wanted("x/y:1", path)


def test_an_archive_without_the_image_is_refused(tmp_path: Path) -> None:
    assert image_store.manifest_of(archive(tmp_path / "a.tar", "sha256:0")) == {"digest": "sha256:0"}
    with pytest.raises(CheckFailed, match="does not contain the image x/y:2"):
        image_store.manifest_of(Wanted("x/y:2", tmp_path / "a.tar"))


def test_two_engines_share_a_store_and_an_older_one_goes_when_nobody_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(image: Wanted, manifest: object, store: Path, timeout: float) -> None:
        made.append(store)
        store.mkdir()

    monkeypatch.setattr(image_store, "_make", make)
    monkeypatch.setattr(image_store, "folder", lambda: tmp_path / "stores")
    old, new = archive(tmp_path / "old.tar", "sha256:0"), archive(tmp_path / "new.tar", "sha256:1")
    with image_store.held([old], timeout=5) as first, image_store.held([old], timeout=5) as second:
        assert first == second and made == first
        with image_store.held([new], timeout=5) as third:
            assert third == made[1:] and first[0].is_dir(), "it is still used"
    with image_store.held([new], timeout=5):
        assert len(made) == 2 and not made[0].exists()


def test_the_name_server_knows_no_name() -> None:
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x05stock\x00\x00\x10\x00\x01"
    reply = nameserver.answer(question)
    number, flags, questions, answers, *_ = struct.unpack(">HHHHHH", reply[:12])
    assert (number, flags & 0x8000, flags & 15, questions, answers) == (7, 0x8000, 3, 1, 0)
    assert reply[12:] == question[12:]
    assert nameserver.answer(b"short") == b"" and nameserver.answer(reply) == b""


def listening() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with listening() as busy:
        port = busy.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use — name another port in .env"),
            ports.published(None, [port]),  # type: ignore[arg-type]
        ):
            raise AssertionError("the block ran")


def children() -> list[int]:
    """The processes that this process's main thread has started and that have not ended."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def until_ended(pid: int, seconds: float) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.02)
    return False


def test_connections_are_carried_both_ways_and_end_with_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as near, listening() as nobody, listening() as server:
        far = server.getsockname()[1]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            closed = free.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        others = children()
        with ports.carried([near, nobody], [far, closed]):
            with socket.create_connection(near.getsockname(), timeout=20) as client:
                client.sendall(b"a question")
                assert client.recv(100) == b"A QUESTION" and client.recv(1) == b""
            with socket.create_connection(nobody.getsockname(), timeout=20) as client:
                assert client.recv(1) == b""  # where nobody listens, a client sees the end
            (carrying,) = [pid for pid in children() if pid not in others]
            os.kill(carrying, signal.SIGINT)
            assert not until_ended(carrying, 0.5), "Ctrl-C ends it before the process that needs it"
        thread.join(20)
        assert capfd.readouterr() == ("", ""), "Ctrl-C shows nothing of the process that carries"
        with socket.create_connection(near.getsockname(), timeout=0.3) as client, pytest.raises(TimeoutError):
            client.recv(1)  # nobody carries any more
