"""A small shop on Drone: Gitea with its repository, and Drone that has built it once, for whoever wants to look around."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.core.redact import Secret
from stackbook.lessons.delivery import drone, gitea, npm, openssl
from stackbook.lessons.delivery.drone import Drone
from stackbook.lessons.delivery.drone_builds import Project, pipeline
from stackbook.lessons.delivery.gitea import Gitea
from stackbook.lessons.delivery.repository import Repository

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

FILES = ("package.json", "package-lock.json", "demo-cli-1.0.0.tgz")
IGNORED = "node_modules\n.npm-cache\ndist\n"


@dataclass(frozen=True)
class Shop:
    """The repository in Gitea and in Drone.

    Attributes:
        gitea: the git server.
        drone: the build server; its user is signed in.
        repository: the shop in Gitea.
        project: the shop in Drone, active and trusted, with its two secrets.
        password: the secret `docker_pass`.
        work: the working copy.
        cache: the folder of this host for the volume `cache`.
        files: what a push begins with, but for .drone.yml.
    """

    gitea: Gitea
    drone: Drone
    repository: Repository
    project: Project
    password: Secret
    work: Path
    cache: Path
    files: dict[str, str | bytes]

    def push(self, text: str = "", message: str = "the shop") -> str:
        """Push the shop with a pipeline, by default the one of `drone_builds.pipeline`; returns the commit's id."""
        return self.repository.push(self.work, {**self.files, ".drone.yml": text or pipeline(self.cache)}, message)


@contextlib.contextmanager
def running(artifacts: Resolver, parts: gitea.Parts) -> Iterator[Shop]:
    """Run Gitea and Drone while the block runs. Nothing is pushed yet.

    Args:
        artifacts: the lab's components; a missing one is built.
        parts: Gitea's.

    Raises:
        ArtifactError: a component cannot be obtained.
        CheckFailed, WaitTimeout: see `gitea.running` and `drone.started`.
    """
    with gitea.running(parts) as server, npm.sandbox(artifacts) as tool, drone.started(artifacts, server) as started:
        tool.run(f"npm install --save-prod ./{FILES[-1]}")
        started.sign_in()
        repository, password, cache = Repository.create(server, "shop"), openssl.rand_hex(16), tool.root / "cache"
        cache.mkdir()
        project = Project.activate(started, repository.path)
        for name, value in (("docker_user", Secret("team")), ("docker_pass", password)):
            project.secret(name, value)
        project.trust()
        files: dict[str, str | bytes] = {
            ".gitignore": IGNORED,
            **{name: (tool.project / name).read_bytes() for name in FILES},
        }
        yield Shop(server, started, repository, project, password, server.folder / "shop", cache, files)
