"""A project of Docker Compose that is up while a block runs: `up` with a deadline and a cause, commands in its containers, `down`."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import Output, ToolFailed
from stackbook.core import private
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.redact import Secret, redact
from stackbook.lessons.compose import health
from stackbook.lessons.containers.docker_daemon import PROJECT
from stackbook.lessons.containers.engines import ContainerEngine

_SERVICE = "com.docker.compose.service"


def write_secrets(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files of a project's secrets to secrets/ in its folder, which only its owner can open."""
    hidden = private.folder(folder / "secrets")
    for name, content in contents.items():
        # The containers' user is not this one, and a bind mount keeps the mode; nobody else can enter the folder.
        private.write(hidden / name, Secret(content, remember=False)).chmod(0o444)


@dataclass(frozen=True)
class Project:
    """A project on an engine.

    Attributes:
        engine: the engine.
        program: the artifact `docker-compose`.
        folder: the folder with compose.yaml.
        name: the project's name.
        healthy: when each container was healthy for the first time, by its id, in seconds since the epoch.
    """

    engine: ContainerEngine
    program: Path
    folder: Path
    name: str
    healthy: Mapping[str, float] = field(default_factory=dict)

    def compose(self, *args: str, check: bool = True, timeout: float = 120.0, secret: bool = False) -> Output:
        """Run `docker compose` with these arguments; with `secret`, only `Output.reveal` returns what it printed.

        Raises:
            ToolFailed: it failed and `check` is set.
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
        """
        argv = [str(self.program), *(["--project-name", self.name] if self.name else []), "--progress", "plain", *args]
        return go_toolchain.call(argv, shown=("docker", "compose", *args), cwd=self.folder, env=_environment(self.engine),
                                 check=check, timeout=timeout, secret=secret)  # fmt: skip

    def model(self) -> dict[str, Any]:
        """The file with its variables filled in.

        Raises:
            ToolFailed: compose refuses the file.
        """
        found: dict[str, Any] = json.loads(self.compose("config", "--format", "json").text)
        return found

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What the engine knows about the containers of a service, or of all, by their names."""
        mine = [
            entry["Id"]
            for entry in self.engine.containers()
            if (entry["Labels"] or {}).get(PROJECT) == self.name and service in ("", entry["Labels"].get(_SERVICE))
        ]
        found = [self.engine.inspect(container) for container in mine]
        return sorted(found, key=lambda entry: str(entry["Name"]))

    def container(self, service: str) -> dict[str, Any]:
        """The first container of a service.

        Raises:
            CheckFailed: it has none.
        """
        found = self.containers(service)
        if not found:
            raise CheckFailed(f"the service {service} has no container")
        return found[0]

    def exec(self, service: str, *argv: str, timeout: float = 60.0, secret: bool = False) -> str:
        """Run a command in the first container of a service; returns its output, which is shown nowhere if it is `secret`.

        Raises:
            ToolFailed: it failed.
        """
        output = self.compose("exec", "--no-TTY", service, *argv, timeout=timeout, secret=secret)
        return output.reveal() if secret else output.text

    def logs(self, service: str) -> list[str]:
        """The lines that the containers of a service have written, without the containers' names."""
        answer = self.compose("logs", "--no-color", "--no-log-prefix", service)
        return answer.text.splitlines()

    def unready(self) -> str:
        """Which service is the first that is not ready, in which state it is, and its last log lines; empty if all are ready."""
        waiting = [entry for entry in self.containers() if not _ready(entry)]
        started = [entry for entry in waiting if entry["State"]["Status"] not in ("created", "configured")]
        for entry in sorted(started or waiting, key=lambda entry: _words(entry) != "unhealthy"):
            service = entry["Config"]["Labels"][_SERVICE]
            lines = [line for line in self.logs(service) if line.strip()]
            checks = (entry["State"].get("Health") or {}).get("Log") or []
            said = str(checks[-1].get("Output", "")).strip().splitlines() if checks else []
            last = " / ".join(line.strip()[:200] for line in lines[-3:])
            parts = [f"{service} is {_words(entry)}", f"its check says: {said[-1]}" if said else "",
                     f"its last log lines: {last}" if lines else "its log is empty"]  # fmt: skip
            return redact("; ".join(filter(None, parts)))
        return ""

    def down(self, *, timeout: float = 60.0) -> None:
        """Stop and remove its containers, networks and volumes.

        Raises:
            CheckFailed: something is left.
        """
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", timeout=timeout)
        if left := self.engine.left(self.name):
            raise CheckFailed(f"after `docker compose down` there is still: {left}")


def _ready(entry: dict[str, Any]) -> bool:
    state = entry["State"]
    if state["Status"] == "exited":
        return bool(state["ExitCode"] == 0)
    healthy = (state.get("Health") or {}).get("Status") or "healthy"
    return bool(state["Status"] == "running" and healthy == "healthy")


def _words(entry: dict[str, Any]) -> str:
    state = entry["State"]
    if state["Status"] == "exited":
        return f"ended with status {state['ExitCode']}"
    return str((state.get("Health") or {}).get("Status") or state["Status"])


@contextlib.contextmanager
def up(engine: ContainerEngine, program: Path, folder: Path, *, timeout: float = 120.0) -> Iterator[Project]:
    """Bring up the project of a folder and wait until each service is healthy; afterwards, take everything of it down.

    Published ports are on this host's loopback interface while the block runs.

    Args:
        engine: the engine.
        program: the artifact `docker-compose`.
        folder: the folder with compose.yaml.
        timeout: deadline in seconds until each service is healthy.

    Raises:
        InputError: an image is not there, a port is in use or is not on the loopback interface; nothing was started.
        ToolFailed: compose refuses the file.
        WaitTimeout: a service is not healthy; the error names it, with its state and its last log lines.
    """
    model = Project(engine, program, folder, "").model()
    _demand_images(engine, model)
    with contextlib.ExitStack() as scope:
        scope.enter_context(engine.serving(published(model)))
        name = engine.project(model["name"])
        healthy = scope.enter_context(health.of(engine, name))
        project = Project(engine, program, folder, name, healthy)
        scope.callback(project.down)
        start(project, timeout=timeout)
        yield project


def start(project: Project, *services: str, recreate: bool = True, timeout: float = 120.0) -> None:
    """`docker compose up --wait`, for all services or for these; raises the errors of `up`.

    Args:
        project: the project.
        services: the services; none for all.
        recreate: replace containers whose configuration differs. With podman, compose takes those of a restart for different.
        timeout: deadline in seconds.
    """
    how = [] if recreate else ["--no-recreate"]
    try:
        answer = project.compose(
            "up", "--detach", "--wait", "--pull", "never", *how, *services, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise WaitTimeout(f"the services of {project.name} to be healthy", timeout, last=project.unready()) from None
    if answer.rc:
        if cause := project.unready():
            raise WaitTimeout(f"the services of {project.name} to be healthy", timeout, last=cause)
        raise ToolFailed(answer)


def _environment(engine: ContainerEngine) -> dict[str, str]:
    """What docker-compose needs to find the engine, and nothing of the user's."""
    return {
        "DOCKER_HOST": engine.host,
        "DOCKER_CONFIG": str(engine.folder / "docker"),
        "HOME": str(engine.folder),
        "COMPOSE_ANSI": "never",
        "COMPOSE_STATUS_STDOUT": "false",
        "LC_ALL": "C.UTF-8",
    }


def _demand_images(engine: ContainerEngine, model: dict[str, Any]) -> None:
    there = engine.images()
    for name, service in model["services"].items():
        if service["image"] not in there:
            raise InputError(f"the image {service['image']} of the service {name} is not there",
                             fix="name an image of `stackbook images` in .env")  # fmt: skip


def published(model: dict[str, Any]) -> list[int]:
    """The ports that a file publishes.

    Raises:
        InputError: one is published to other hosts too.
    """
    found = []
    for name, service in model["services"].items():
        for port in service.get("ports") or []:
            if port.get("host_ip") != "127.0.0.1":
                raise InputError(f"{name} publishes port {port['target']} to other hosts",
                                 fix=f'write "127.0.0.1:{port.get("published", port["target"])}:{port["target"]}"')  # fmt: skip
            found.append(int(port["published"]))
    return found
