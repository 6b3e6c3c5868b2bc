"""The engine for compose: a podman service with namespaces and storage of its own, which ends with the block that runs it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.lessons.compose import image_store, namespaces
from stackbook.lessons.compose.image_store import Wanted

_API = "/v4.0.0/libpod"
_SERVE = """\
podman system service --time 0 "unix://$1" &
wait $!
"""
# Only podman's own name for these folders; what is in them belongs to the containers of this engine.
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        version: podman's version.
        folder: its folder.
        socket: its API's socket, which speaks Docker's API too.
        process: the process that made the namespaces; its only child is the first process inside.
    """

    version: str
    folder: Path
    socket: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What docker-compose needs to find it, and nothing of the user's."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.folder / "docker"),
            "HOME": str(self.folder),
            "COMPOSE_ANSI": "never",
            "COMPOSE_STATUS_STDOUT": "false",
            "LC_ALL": "C.UTF-8",
        }

    @property
    def inside(self) -> int:
        """The process number, on this host, of the first process inside the namespaces."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            raise CheckFailed("podman's namespaces have ended")
        return int(children[0])

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """A client of its API; paths begin with a slash."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://podman", timeout=timeout
        )

    def get(self, path: str, *, timeout: float = 30.0, **query: str) -> Any:
        """The JSON of a GET of podman's own API.

        Raises:
            CheckFailed: podman refuses; the message has its words.
        """
        with self.client(timeout=timeout) as client:
            answer = client.get(f"{_API}{path}", params=query)
        if not answer.is_success:
            raise CheckFailed(f"podman answers {answer.status_code} to {path}: {answer.text.strip()[:300]}")
        return answer.json()

    def containers(self) -> list[dict[str, Any]]:
        """Every container, also those that do not run."""
        found: list[dict[str, Any]] = self.get("/containers/json", all="true")
        return found

    def left(self) -> dict[str, list[str]]:
        """The names of its containers, volumes and networks but podman's own one, by kind; empty if there is nothing."""
        found = {
            "containers": [entry["Names"][0] for entry in self.containers()],
            "volumes": [entry["Name"] for entry in self.get("/volumes/json") or []],
            "networks": [entry["name"] for entry in self.get("/networks/json") if entry["name"] != "podman"],
        }
        return {kind: names for kind, names in found.items() if names}

    def kill(self, container: str) -> int:
        """Kill a container's first process as the kernel would, past podman; returns its number inside the namespaces."""
        pid = int(self.get(f"/containers/{container}/json")["State"]["Pid"])
        if not pid:
            raise CheckFailed(f"{container} does not run")
        self.enter(["kill", "-KILL", str(pid)], "--pid", "--mount")
        return pid

    def enter(self, argv: Sequence[str], *namespaces_of: str, timeout: float = 30.0) -> str:
        """Run a command in some of its namespaces (nsenter's options); returns its output.

        Raises:
            ToolFailed: it failed.
        """
        full = ["nsenter", "--target", str(self.inside), *namespaces_of, "--", *argv]
        return go_toolchain.call(full, timeout=timeout).text


@contextlib.contextmanager
def running(images: Sequence[Wanted], *, timeout: float = 60.0) -> Iterator[Engine]:
    """Run an engine with these images while the block runs; then end all its processes and remove its folder.

    Raises:
        HostUnfit: this host cannot run it (`namespaces.demand`).
        CheckFailed: an image cannot be read, or podman ended.
        WaitTimeout: podman does not answer in time.
    """
    namespaces.demand()
    with image_store.held(list(images)) as stores, temp_dirs.folder("compose") as path:
        inner = namespaces.Folder(path, graph_root=path / "storage", image_stores=stores)
        inner.write()
        (path / "docker").mkdir()
        socket = path / "podman.sock"
        with (path / "podman.log").open("wb") as log:
            process = subprocess.Popen(
                namespaces.command(inner, _SERVE, str(socket)), env=inner.environment, cwd=path, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield Engine(_wait(process, socket, path / "podman.log", timeout), path, socket, process)
        finally:
            # --kill-child: the kernel kills the first process inside, and with it all others.
            end(process, steps=((signal.SIGKILL, 10.0),))
            _remove_groups(path / "storage")


def _wait(process: subprocess.Popen[bytes], socket: Path, log: Path, timeout: float) -> str:
    """Wait until podman answers; returns its version."""

    def said() -> str:
        return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]

    def version() -> str:
        if process.poll() is not None:
            raise CheckFailed(f"podman ended with status {process.returncode}: {said()}")
        if not socket.exists():
            return ""
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://podman", timeout=5
        ) as client:
            return str(client.get("/version").json()["Version"])

    return until(version, what="podman to answer on its socket", timeout=timeout, every=0.1, last=said,
                 tolerate=(httpx.TransportError,))  # fmt: skip


def _remove_groups(storage: Path) -> None:
    """Remove the empty control groups of containers that ended with their namespaces, before podman could do it."""
    file = storage / "overlay-containers" / "containers.json"
    if not file.is_file():
        return
    for entry in json.loads(file.read_text()):
        for pattern in (f"libpod_parent/libpod-{entry['id']}", f"*/libpod_parent/libpod-{entry['id']}"):
            for group in _CGROUPS.glob(pattern):
                with contextlib.suppress(OSError):
                    until(lambda group=group: _removed(group), what=f"{group} to be empty", timeout=5, every=0.05)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    try:
        for inner in sorted(group.glob("**/"), reverse=True):
            inner.rmdir()
    except OSError:
        return not group.exists()
    return True
