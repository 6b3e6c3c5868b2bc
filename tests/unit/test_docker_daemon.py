"""A Docker daemon that is somebody's: what the lab adds to it is removed again, and nothing else is. The daemon is a fake with a state."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from stackbook.core.errors import CheckFailed, HostUnfit, InputError
from stackbook.core.waiting import until
from stackbook.lessons.compose import health
from stackbook.lessons.containers import docker_archive, docker_daemon, engine, engines, namespaces
from stackbook.lessons.containers.image_store import Wanted

LABEL = "com.docker.compose.project"


class Server(ThreadingMixIn, UnixStreamServer):
    """What a daemon has: by kind, objects by name."""

    daemon_threads = True

    def __init__(self, place: Path) -> None:
        super().__init__(str(place), Handler)
        self.place = place
        self.state: dict[str, dict[str, Any]] = {
            "containers": {"theirs": {LABEL: "bookshop"}}, "volumes": {"theirs_data": {LABEL: "bookshop"}},
            "networks": {"bridge": {}, "theirs_default": {LABEL: "bookshop"}}, "images": {"theirs:1": {}},
        }  # fmt: skip
        self.healthy: list[dict[str, Any]] = []
        self.refuses = ""

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("local", 0)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None: ...

    def _answer(self, body: Any, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        url, state = urlsplit(self.path), self.server.state
        if self.server.refuses:
            return self._answer({"message": self.server.refuses}, 500)
        (label,) = json.loads(parse_qs(url.query).get("filters", ['{"label": [""]}'])[0])["label"]
        project = label.partition("=")[2]
        kind = url.path.split("/")[1]
        if kind == "version":
            return self._answer({"Version": "20.10.24"})
        if kind == "images":
            return self._answer([{"RepoTags": [name]} for name in state["images"]])
        if kind == "containers" and url.path.count("/") == 3:
            name = url.path.split("/")[2]
            if name not in state["containers"]:
                return self._answer({"message": f"No such container: {name}"}, 404)
            return self._answer({"Name": f"/{name}", "State": {"Pid": 7, "Health": {"Log": self.server.healthy}}})
        mine = [(name, labels) for name, labels in state[kind].items() if labels.get(LABEL) == project]
        if kind == "containers":
            return self._answer([{"Id": name, "Names": [f"/{name}"], "Labels": labels} for name, labels in mine])
        entries = [{"Name": name} for name, _ in mine]
        return self._answer({"Volumes": entries or None} if kind == "volumes" else entries)

    def do_POST(self) -> None:
        assert self.path.startswith("/images/load")
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            index = tar.extractfile("manifest.json")
            assert index is not None
            for entry in json.load(index):
                assert all(tar.getmember(name).isfile() for name in (entry["Config"], *entry["Layers"]))
                self.server.state["images"] |= {name: {} for name in entry["RepoTags"]}
        self._answer({"stream": "Loaded"})

    def do_DELETE(self) -> None:
        _, kind, name = urlsplit(self.path).path.split("/", 2)
        if "theirs" in name:
            raise AssertionError(f"{self.path} is not the lab's")
        del self.server.state[kind][name]
        self._answer({})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        Server(Path(folder) / "s") as made,
    ):  # a socket's path is short
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{made.place}")
        yield made
        made.shutdown()


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """An image of one layer in an OCI archive, beside another image that nobody asks for."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return f"sha256:{digest}"

    def image(name: str) -> dict[str, Any]:
        config, layer = blob(f"config of {name}".encode()), blob(f"layer of {name}".encode() * 100)
        manifest = blob(
            json.dumps({"config": {"digest": config}, "layers": [{"digest": layer}, {"digest": layer}]}).encode()
        )
        return {"digest": manifest, "annotations": {"io.containerd.image.name": name}}

    cut = {"digest": "sha256:gone", "annotations": {"io.containerd.image.name": "lab/cut:1"}}
    blobs["index.json"] = json.dumps({"manifests": [image("lab/mine:1"), image("lab/other:1"), cut]}).encode()
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for name, content in blobs.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return Wanted("lab/mine:1", tmp_path / "two.tar")


def test_an_image_becomes_what_docker_load_reads(wanted: Wanted) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(docker_archive.chunks(wanted)))) as tar:
        names = tar.getnames()
        found = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert len(names) == 3, "the configuration, one layer although it is there twice, and the manifest"
    (entry,) = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == ["lab/mine:1"] and found[entry["Config"]] == b"config of lab/mine:1"
    assert [found[layer] for layer in entry["Layers"]] == [b"layer of lab/mine:1" * 100] * 2
    with pytest.raises(CheckFailed, match=r"two\.tar does not contain the image lab/none:1"):
        next(docker_archive.chunks(Wanted("lab/none:1", wanted.archive)))
    with pytest.raises(CheckFailed, match=r"^the archive does not contain sha256:gone"):
        next(docker_archive.chunks(Wanted("lab/cut:1", wanted.archive)))


def test_what_was_added_is_removed_and_nothing_else(server: Server, wanted: Wanted) -> None:
    before = json.dumps(server.state)
    with docker_daemon.running(server.place, [wanted]) as daemon:
        assert daemon.images() == {"theirs:1", "lab/mine:1"} and daemon.left("bookshop") != {}
        name = daemon.project("bookshop")
        assert name.startswith("stackbook-bookshop-") and name != daemon.project("bookshop")
        for kind in ("containers", "volumes", "networks"):
            server.state[kind][f"{name}-x"] = {LABEL: name}
        assert set(daemon.left(name)) == {"containers", "volumes", "networks"}
        assert [entry["Id"] for entry in daemon.containers()] == [f"{name}-x"], "somebody else's are not looked at"
    assert json.dumps(server.state) == before


def test_an_image_that_was_there_stays(server: Server, wanted: Wanted) -> None:
    server.state["images"]["lab/mine:1"] = {}
    with docker_daemon.running(server.place, [wanted]):
        pass
    assert set(server.state["images"]) == {"theirs:1", "lab/mine:1"}


def test_what_a_killed_process_left_is_removed_by_the_next(
    server: Server, wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.dumps(server.state)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"stackbook-docker-{os.getpid()}-1-abc"  # this process was born at another moment
    folder.mkdir()
    dead = docker_daemon.Daemon(folder, server.place)
    docker_daemon._note(dead, ["lab/mine:1"])
    dead.load(wanted)
    name = dead.project("bookshop")
    server.state["containers"]["left"] = {LABEL: name}
    assert docker_daemon.sweep() == []
    assert json.dumps(server.state) == before and not folder.exists()


def test_what_cannot_be_removed_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, early = (tmp_path / f"stackbook-docker-{os.getpid()}-1-{name}" for name in ("abc", "xyz"))
    killed.mkdir()
    early.mkdir()
    dead = docker_daemon.Daemon(killed, server.place)
    docker_daemon._note(dead, ["lab/mine:1"])
    name = dead.project("bookshop")
    server.refuses = "it is being stopped"
    (said,) = docker_daemon.sweep()
    assert said.startswith(f"left on Docker's daemon: {name}, lab/mine:1: Docker answers 500 to ")
    assert not killed.exists() and not early.exists()


def test_which_engine_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A podman of the lab's own where it can run; Docker only where it cannot."""

    def refuse() -> None:
        raise HostUnfit("podman not found, but containers need it", fix="tools/setup.sh installs it")

    class Own:
        def __enter__(self) -> str:
            return "podman"

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(namespaces, "demand", lambda: None)
    monkeypatch.setattr(engine, "running", lambda _images, timeout: Own())
    with engines.running([]) as used:
        assert used == "podman"  # type: ignore[comparison-overlap]
    monkeypatch.setattr(namespaces, "demand", refuse)
    with engines.running([]) as used:
        assert isinstance(used, docker_daemon.Daemon) and used.host == f"unix://{server.place}"
    server.refuses = "it is being stopped"
    with pytest.raises(
        HostUnfit, match=r"^podman not found, but containers need it, and no Docker daemon answers — tools/"
    ):
        engines.demand()


@pytest.mark.parametrize("given", ["tcp://192.0.2.1:2375", "ssh://somewhere", "unix:///nowhere/docker.sock"])
def test_a_daemon_elsewhere_or_none_is_not_used(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", given)
    assert docker_daemon.found() is None


def test_docker_says_why_it_refuses(server: Server) -> None:
    daemon = docker_daemon.Daemon(server.place.parent, server.place)
    with pytest.raises(CheckFailed, match="Docker answers 404 to /containers/none/json: No such container: none"):
        daemon.inspect("none")
    with pytest.raises(CheckFailed, match="Docker does not answer at /nowhere"):
        docker_daemon.Daemon(Path("/"), Path("/nowhere")).images()


def test_a_port_in_use_is_refused(server: Server) -> None:
    daemon = docker_daemon.Daemon(server.place.parent, server.place)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(InputError, match="in use"), daemon.serving([busy.getsockname()[1]]):
            pass
        free = busy.getsockname()[1]
    with daemon.serving([free]):
        pass


def test_the_first_good_check_is_noted(server: Server) -> None:
    daemon = docker_daemon.Daemon(server.place.parent, server.place, ["p"])
    server.state["containers"]["one"] = {LABEL: "p"}
    server.healthy = [
        {"ExitCode": 1, "End": "1970-01-01T00:00:01Z"},
        {"ExitCode": 0, "End": "1970-01-01T01:00:02.5+01:00"},
    ]
    with health.of(daemon, "p") as first:
        until(lambda: first, what="the check to be noted", timeout=10, every=0.05)
    assert first == {"one": 2.5}
