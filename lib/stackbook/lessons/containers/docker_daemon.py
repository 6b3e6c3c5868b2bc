"""A Docker daemon that is there already, for a host on which the lab cannot run a podman of its own.

The daemon is somebody's, and so are its containers: the lab adds images that were not there, and projects with a name of their own
(`stackbook-…`), and removes both. What a killed process left is removed by the next one, or by a reset: its folder says what it was.
Source of the API: https://docs.docker.com/reference/api/engine/version/v1.41/ (Docker 20.10).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from stackbook.core import temp_dirs
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.lessons.containers import docker_archive
from stackbook.lessons.containers.image_store import Wanted
from stackbook.lessons.containers.ports import listening

SOCKET = Path("/var/run/docker.sock")
PROJECT = "com.docker.compose.project"
"""The label that Docker Compose gives to what belongs to a project."""
_NAME = "docker"
_NOTE = "made.json"


@dataclass(frozen=True)
class Daemon:
    """A Docker daemon that answers.

    Attributes:
        folder: what a client of it writes.
        socket: the socket of its API.
        projects: the names of the projects that were brought up on it.
    """

    folder: Path
    socket: Path
    projects: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Its address, for DOCKER_HOST."""
        return f"unix://{self.socket}"

    def client(self, *, timeout: float = 60.0) -> httpx.Client:
        """A client of its API; paths begin with a slash."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://docker", timeout=timeout, trust_env=False)

    def request(self, method: str, path: str, *, timeout: float = 60.0, **how: Any) -> httpx.Response:
        """A request of its API.

        Raises:
            CheckFailed: Docker refuses, or does not answer; the message has its words.
        """
        if not self.socket.is_socket():
            raise CheckFailed(f"Docker does not answer at {self.socket}: there is no socket")
        try:
            with self.client(timeout=timeout) as client:
                answer = client.request(method, path, **how)
        except httpx.TransportError as error:
            raise CheckFailed(f"Docker does not answer at {self.socket}: {error}") from None
        if not answer.is_success:
            with contextlib.suppress(ValueError, KeyError):
                raise CheckFailed(f"Docker answers {answer.status_code} to {path}: {answer.json()['message'][:300]}")
            raise CheckFailed(f"Docker answers {answer.status_code} to {path}: {answer.text.strip()[:300]}")
        return answer

    def project(self, name: str) -> str:
        """A name for a project that nobody else's has; what was made under it is found again by it."""
        own = f"stackbook-{name}-{secrets.token_hex(4)}"
        self.projects.append(own)
        _note(self)
        return own

    def containers(self, project: str = "") -> list[dict[str, Any]]:
        """The containers of a project, also those that do not run; of the lab's projects where none is named."""
        named = [project] if project else self.projects
        found = [self._of(each, "/containers/json", all="true") for each in named]
        return [entry for entries in found for entry in entries]

    def inspect(self, container: str) -> dict[str, Any]:
        """What Docker knows about a container; its name is without the slash in front."""
        found: dict[str, Any] = self.request("GET", f"/containers/{container}/json").json()
        return {**found, "Name": str(found["Name"]).lstrip("/")}

    def images(self) -> set[str]:
        """The names of its images."""
        entries = self.request("GET", "/images/json").json()
        return {name for entry in entries for name in entry.get("RepoTags") or []}

    def left(self, project: str) -> dict[str, list[str]]:
        """The names of a project's containers, volumes and networks, by kind; empty if there is nothing."""
        found = {
            "containers": [entry["Names"][0].lstrip("/") for entry in self.containers(project)],
            "volumes": [entry["Name"] for entry in self._of(project, "/volumes")],
            "networks": [entry["Name"] for entry in self._of(project, "/networks")],
        }
        return {kind: names for kind, names in found.items() if names}

    def kill(self, container: str) -> int:
        """Kill a container's first process as the kernel would; returns its number on the daemon's host.

        Docker takes `docker kill` for the user's wish, and does not start the container again. So a container beside it, which sees
        the host's processes, sends the signal.
        """
        state = self.inspect(container)
        pid = int(state["State"]["Pid"])
        if not pid:
            raise CheckFailed(f"{container} does not run")
        helper = {
            "Image": state["Config"]["Image"], "User": "0:0", "Entrypoint": [], "Healthcheck": {"Test": ["NONE"]},
            "Cmd": ["sh", "-c", f"kill -KILL {pid}"], "Labels": {PROJECT: state["Config"]["Labels"][PROJECT]},
            "HostConfig": {"PidMode": "host", "NetworkMode": "none"},
        }  # fmt: skip
        made = self.request("POST", "/containers/create", json=helper).json()["Id"]
        try:
            self.request("POST", f"/containers/{made}/start")
            ended = self.request("POST", f"/containers/{made}/wait").json()["StatusCode"]
        finally:
            self.request("DELETE", f"/containers/{made}", params={"force": "true", "v": "true"})
        if ended:
            raise CheckFailed(f"the first process of {state['Name']} could not be killed: status {ended}")
        return pid

    @contextlib.contextmanager
    def serving(self, ports: Sequence[int]) -> Iterator[None]:
        """Docker publishes the ports itself; here they are only looked at.

        Raises:
            InputError: a port is in use.
        """
        for port in ports:
            listening(port).close()
        yield

    def load(self, image: Wanted) -> None:
        """Add an image.

        Raises:
            CheckFailed: the archive does not contain it, or Docker refuses it.
        """
        answer = self.request(
            "POST", "/images/load", params={"quiet": "1"}, content=docker_archive.chunks(image), timeout=300
        )
        if missing := set(image.names or (image.reference,)) - self.images():
            raise CheckFailed(f"Docker did not load {', '.join(sorted(missing))}: {answer.text.strip()[-300:]}")

    def remove(self, project: str) -> None:
        """Remove what is left of a project: containers first, as they use the others."""
        for entry in self.containers(project):
            self.request("DELETE", f"/containers/{entry['Id']}", params={"force": "true", "v": "true"})
        left = self.left(project)
        for kind in ("volumes", "networks"):
            for name in left.get(kind, []):
                self.request("DELETE", f"/{kind}/{name}")

    def _of(self, project: str, path: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a kind that have a project's label."""
        filters = json.dumps({"label": [f"{PROJECT}={project}"]})
        found = self.request("GET", path, params={**query, "filters": filters}).json()
        return list(found.get("Volumes") or []) if isinstance(found, dict) else list(found or [])


def found() -> Path | None:
    """The socket of a Docker daemon that answers: that of DOCKER_HOST, or Docker's own; None if there is none.

    A daemon on another machine is not used: it would not see the files of a project's passwords.
    """
    given = os.environ.get("DOCKER_HOST", "")
    if given and not given.startswith("unix://"):
        return None
    place = Path(given.removeprefix("unix://")) if given else SOCKET
    with contextlib.suppress(StackbookError, OSError, ValueError):
        Daemon(place.parent, place).request("GET", "/version", timeout=5.0).json()
        return place
    return None


@contextlib.contextmanager
def running(place: Path, images: Sequence[Wanted]) -> Iterator[Daemon]:
    """Use a daemon with these images while the block runs; then remove those that were added, and what is left of projects.

    Raises:
        CheckFailed: an image cannot be read, or Docker refuses it.
    """
    sweep()
    with temp_dirs.folder(_NAME) as folder:
        daemon = Daemon(folder, place)
        before = daemon.images()
        added = [image for image in images if not set(image.names or (image.reference,)) <= before]
        _note(daemon, [name for image in added for name in image.names or (image.reference,) if name not in before])
        try:
            for image in added:
                daemon.load(image)
            yield daemon
        finally:
            _clear(daemon)


def sweep() -> list[str]:
    """Remove what killed processes left on their daemons: their projects, and the images that they had added.

    Returns what could not be removed, a line each, with the reason: afterwards, nobody else knows of it.
    """
    said = []
    for folder in temp_dirs.abandoned(_NAME):
        if not (folder / _NOTE).is_file():  # it was killed before it added anything
            continue
        note = _noted(folder)
        try:
            _clear(Daemon(folder, Path(note["socket"])))
        except StackbookError as error:
            names = ", ".join([*note["projects"], *note["images"]])
            said.append(f"left on Docker's daemon: {names}: {error}")
    temp_dirs.sweep(_NAME)
    return said


def _note(daemon: Daemon, images: Sequence[str] | None = None) -> None:
    """Write down what the lab makes on the daemon, before it is made."""
    known = _noted(daemon.folder) if images is None else {"images": list(images)}
    note = {"socket": str(daemon.socket), "projects": daemon.projects, "images": known["images"]}
    (daemon.folder / _NOTE).write_text(json.dumps(note), encoding="utf-8")


def _noted(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    return found


def _clear(daemon: Daemon) -> None:
    """Remove what the note names, as far as it is there."""
    note = _noted(daemon.folder)
    for project in note["projects"]:
        daemon.remove(project)
    there = daemon.images()
    for name in note["images"]:
        if name in there:
            daemon.request("DELETE", f"/images/{name}")
