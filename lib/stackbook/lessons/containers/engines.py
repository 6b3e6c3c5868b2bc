"""Which engine runs containers on this host: a podman of the lab's own, or else the Docker daemon that is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from stackbook.core.errors import HostUnfit
from stackbook.lessons.containers import docker_daemon, engine, namespaces
from stackbook.lessons.containers.image_store import Wanted


class ContainerEngine(Protocol):
    """What a project of Docker Compose needs of an engine."""

    @property
    def folder(self) -> Path:
        """What a client of it writes."""

    @property
    def host(self) -> str:
        """Its address, for DOCKER_HOST."""

    def project(self, name: str) -> str:
        """The name under which a project runs on it."""

    def containers(self) -> list[dict[str, Any]]:
        """The lab's containers, also those that do not run."""

    def inspect(self, container: str) -> dict[str, Any]:
        """What it knows about a container."""

    def images(self) -> set[str]:
        """The names of its images."""

    def left(self, project: str) -> dict[str, list[str]]:
        """The names of a project's containers, volumes and networks, by kind; empty if there is nothing."""

    def kill(self, container: str) -> int:
        """Kill a container's first process past the engine; returns its number."""

    def serving(self, ports: Sequence[int]) -> contextlib.AbstractContextManager[None]:
        """Connections to these ports of this host's 127.0.0.1 reach the containers that publish them, while the block runs."""


def demand() -> None:
    """Check that there is an engine.

    Raises:
        HostUnfit: the lab cannot run its own podman here, and no Docker daemon answers.
    """
    _docker()


@contextlib.contextmanager
def running(images: Sequence[Wanted], *, timeout: float = 60.0) -> Iterator[ContainerEngine]:
    """An engine with these images while the block runs.

    Raises:
        HostUnfit: see `demand`.
        CheckFailed: an image cannot be read, or the engine refuses it.
        WaitTimeout: podman does not answer in time.
    """
    if (place := _docker()) is None:
        with engine.running(images, timeout=timeout) as own:
            yield own
    else:
        with docker_daemon.running(place, images) as daemon:
            yield daemon


def _docker() -> Path | None:
    """The socket of Docker's daemon; None where the lab's own podman can run. Raises the errors of `demand`."""
    try:
        namespaces.demand()
    except HostUnfit as error:
        if place := docker_daemon.found():
            return place
        raise HostUnfit(f"{error.message}, and no Docker daemon answers", fix=error.fix) from None
    return None
