"""The engine: a podman service with namespaces and storage of its own, which ends with the block that runs it.

Its containers, mounts and networks exist in namespaces that end with it, whatever happens. It neither sees nor changes the host's
containers and images, and pulls nothing. Only the control groups of its containers are the host's.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.containers import image_store, namespaces
from stackbook.lessons.containers import ports as port_forwards
from stackbook.lessons.containers.image_store import Wanted

_API = "/v4.0.0/libpod"
_SERVE = """\
podman system service --time 0 "unix://$1" &
wait $!
"""
# Only podman's own name for these folders; what is in them belongs to the containers of this engine.
_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 5.0
_NAME = "engine"
_SHORT = Path("/tmp")
"""Where its socket is: the user's temporary folder may be longer than the 107 bytes of a socket's address (unix(7))."""


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        folder: everything that it writes, but its socket.
        process: the process that made the namespaces; its only child is the first process inside.
        socket: its API's socket, which speaks Docker's API too.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    socket: Path

    @property
    def host(self) -> str:
        """Its address, for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def inside(self) -> int:
        """The process number, on this host, of the first process inside the namespaces."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            raise CheckFailed("podman's namespaces have ended")
        return int(children[0])

    def listens(self) -> bool:
        """Whether its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """A client of its API; paths begin with a slash."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://podman", timeout=timeout, trust_env=False)

    def get(self, path: str, *, timeout: float = 30.0, **query: str) -> Any:
        """The JSON of a GET of podman's own API.

        Raises:
            CheckFailed: podman refuses; the message has its words.
            httpx.TransportError: podman does not answer.
        """
        with self.client(timeout=timeout) as client:
            answer = client.get(f"{_API}{path}", params=query)
        if not answer.is_success:
            raise CheckFailed(f"podman answers {answer.status_code} to {path}: {answer.text.strip()[:300]}")
        return answer.json()

    def containers(self) -> list[dict[str, Any]]:
        """Every container, also those that do not run."""
        found: list[dict[str, Any]] = self.get("/containers/json", all="true") or []
        return found

    def project(self, name: str) -> str:
        """A project's name is as in its file: nobody else uses this engine."""
        return name

    def inspect(self, container: str) -> dict[str, Any]:
        """What podman knows about a container."""
        found: dict[str, Any] = self.get(f"/containers/{container}/json")
        return found

    def images(self) -> set[str]:
        """The names of its images."""
        return {name for entry in self.get("/images/json") for name in entry.get("Names") or []}

    def left(self, project: str = "") -> dict[str, list[str]]:
        """The names of its containers, volumes and networks but podman's own one, by kind; empty if there is nothing.

        Whatever is there is the project's, as each engine has one.
        """
        found = {
            "containers": [entry["Names"][0] for entry in self.containers()],
            "volumes": [entry["Name"] for entry in self.get("/volumes/json") or []],
            "networks": [entry["name"] for entry in self.get("/networks/json") if entry["name"] != "podman"],
        }
        return {kind: names for kind, names in found.items() if names}

    def kill(self, container: str) -> int:
        """Kill a container's first process as the kernel would, past podman; returns its number inside the namespaces."""
        pid = int(self.inspect(container)["State"]["Pid"])
        if not pid:
            raise CheckFailed(f"{container} does not run")
        self.enter(["kill", "-KILL", str(pid)], "--pid", "--mount")
        return pid

    def serving(self, ports: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        """Connections to these ports of this host's 127.0.0.1 reach the same ports inside; raises the errors of `ports.published`."""
        return port_forwards.published(self, ports)

    def enter(self, argv: Sequence[str], *namespaces_of: str, timeout: float = 30.0) -> str:
        """Run a command in some of its namespaces (nsenter's options); returns its output.

        Raises:
            ToolFailed: it failed.
        """
        full = ["nsenter", "--target", str(self.inside), *namespaces_of, "--", *argv]
        return go_toolchain.call(full, timeout=timeout).text

    def said(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


@contextlib.contextmanager
def running(images: Sequence[Wanted], *, timeout: float = 60.0) -> Iterator[Engine]:
    """Run an engine with these images while the block runs; then end all its processes and remove its folder.

    Raises:
        HostUnfit: this host cannot run it (`namespaces.demand`).
        CheckFailed: an image cannot be read, or podman ended.
        WaitTimeout: podman does not answer in time.
    """
    namespaces.demand()
    sweep()
    with (
        image_store.held(list(images)) as stores,
        temp_dirs.folder(_NAME) as path,
        temp_dirs.folder("socket", _SHORT) as place,
    ):
        inner = namespaces.Folder(path, graph_root=path / "storage", image_stores=stores)
        inner.write()
        with (path / "log").open("wb") as log:
            process = subprocess.Popen(
                namespaces.command(inner, _SERVE, str(place / "engine.sock")), env=inner.environment, cwd=path,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        engine = Engine(path, process, place / "engine.sock")
        try:
            until(lambda: _answers(engine), what="the container engine to answer", timeout=timeout, every=0.1,
                  cause=engine.said, tolerate=(httpx.TransportError,))  # fmt: skip
            yield engine
        finally:
            # --kill-child: the kernel kills the first process inside, and with it all others.
            end(process, steps=((signal.SIGKILL, 10.0),))
            _remove_groups(path)


def sweep() -> None:
    """Remove what the engine of a killed process left: the control groups of its containers, and its folder."""
    for folder in temp_dirs.abandoned(_NAME):
        _remove_groups(folder)
    temp_dirs.sweep(_NAME)


def _answers(engine: Engine) -> bool:
    if engine.process.poll() is not None:
        raise CheckFailed(f"the container engine exited with status {engine.process.returncode}: {engine.said()}")
    return engine.listens() and bool(engine.get("/info"))


def _remove_groups(folder: Path) -> None:
    """Remove the empty control groups of containers that ended with their namespaces, before podman could do it."""
    file = folder / "storage" / "overlay-containers" / "containers.json"
    if not file.is_file():
        return
    names = [f"{place}/libpod-*{entry['id']}" for entry in json.loads(file.read_text() or "[]")
             for place in ("libpod_parent", "*/libpod_parent")]  # fmt: skip
    groups = [group for name in names for group in _CGROUPS.glob(name)]
    with contextlib.suppress(WaitTimeout):  # the kernel keeps a group that has a process
        until(lambda: not [group for group in groups if not _removed(group)], what="the control groups to be empty",
              timeout=_PATIENCE, every=0.05)  # fmt: skip


def _removed(group: Path) -> bool:
    try:
        for inner in sorted(group.glob("**/"), reverse=True):
            inner.rmdir()
    except OSError:
        return not group.exists()
    return True
