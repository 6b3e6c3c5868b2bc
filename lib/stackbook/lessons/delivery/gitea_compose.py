"""Gitea with its pages on MariaDB, by Docker Compose: the guide's compose file, run."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from stackbook.core import observed, private, temp_dirs
from stackbook.core.child_processes import free_port
from stackbook.core.errors import HostUnfit
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lessons.compose import project
from stackbook.lessons.containers import engines
from stackbook.lessons.containers.image_store import Wanted
from stackbook.lessons.delivery import gitea, gitea_image, gitea_pages
from stackbook.lessons.delivery.gitea import Gitea
from stackbook.lessons.delivery.repository import Repository

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

COMPONENTS = ("docker-compose", "shop-rootfs", *gitea_image.COMPONENTS)
_TABLES = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'gitea'"


@dataclass(frozen=True)
class Running:
    """The project that is up, and its Gitea."""

    project: project.Project
    server: Gitea

    def query(self, statement: str) -> str:
        """What MariaDB answers to a SQL statement, without the columns' names."""
        argv = ("mariadb", "--defaults-file=/run/secrets/client.cnf", "--batch", "--skip-column-names", "-e", statement)
        return self.project.exec("db", *argv).strip()

    def restart(self, *, timeout: float = 120.0) -> None:
        """Restart all containers, and wait until they are healthy again; raises the errors of `project.up`."""
        self.project.compose("restart", "--timeout", "5", timeout=timeout)
        project.start(self.project, recreate=False, timeout=timeout)


@dataclass(frozen=True)
class Trial:
    """What became of one commit.

    Attributes:
        tables: how many tables of Gitea MariaDB has.
        pushed: the commit that was pushed.
        after: the newest commit after all containers were restarted.
        loaded: what a browser loads for the login page, in kB.
    """

    tables: int
    pushed: str
    after: str
    loaded: int

    def row(self) -> dict[str, object]:
        """A row of a table."""
        return {"tables in MariaDB": self.tables, "pushed": self.pushed[:8], "after a restart": self.after[:8],
                "styles and scripts of the login page, kB": self.loaded}  # fmt: skip


def text() -> str:
    """The compose file."""
    return (files("stackbook.lessons.delivery") / "today" / "gitea-compose-lab.yaml").read_text(encoding="utf-8")


def why_not(artifacts: Resolver) -> str:
    """Why it cannot run here, with the fix; empty if it can. Nothing is built for the answer."""
    if missing := [name for name in COMPONENTS if artifacts.at_hand(name) is None]:
        return f"not built yet, and the chapter goes on without it: stackbook fetch {' '.join(missing)}"
    try:
        engines.demand()
    except HostUnfit as error:
        return f"this host cannot run it, and the chapter goes on without it: {error}"
    return ""


def write(folder: Path, *, port: int, mariadb: str) -> None:
    """Write compose.yaml, .env and secrets/ to a folder that only its owner can open.

    Args:
        folder: the folder.
        port: Gitea's port on the loopback interface.
        mariadb: the full name of MariaDB's image.
    """
    private.folder(folder)
    folder.chmod(0o700)
    (folder / "compose.yaml").write_text(text(), encoding="utf-8")
    settings = f"IMAGE_GITEA={gitea_image.REFERENCE}\nIMAGE_MARIADB={mariadb}\nGITEA_PORT={port}\n"
    (folder / ".env").write_text(settings, encoding="utf-8")
    observed.wrote(folder / "compose.yaml", text())
    observed.wrote(folder / ".env", settings)
    chosen = {user: Secret(secrets.token_urlsafe(24)) for user in ("gitea", "operator")}
    names = {"gitea": "'gitea'@'%'", "operator": "'operator'@'localhost'"}
    lines = ["CREATE DATABASE IF NOT EXISTS gitea CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"]
    for user, name in names.items():
        lines += [f"CREATE USER IF NOT EXISTS {name};", f"ALTER USER {name} IDENTIFIED BY '{chosen[user].reveal()}';"]
    lines += [f"GRANT ALL ON gitea.* TO {names['gitea']};", f"GRANT SELECT ON *.* TO {names['operator']};"]
    client = f"[client]\nuser=operator\npassword={chosen['operator'].reveal()}\nsocket=/run/mariadb/mariadb.sock\n"
    contents = {"gitea": chosen["gitea"].reveal(), "init.sql": "\n".join(lines) + "\n", "client.cnf": client}
    project.write_secrets(folder, contents)


@contextlib.contextmanager
def running(artifacts: Resolver, *, timeout: float = 120.0) -> Iterator[Running]:
    """Run Gitea and MariaDB by compose while the block runs; afterwards nothing of them is left.

    Raises:
        HostUnfit: this host cannot run it.
        ArtifactError: a component cannot be obtained.
        WaitTimeout: a service is not healthy in time; the error names it, with its last log line.
    """
    program, mariadb = artifacts.path("docker-compose"), artifacts.image("mariadb")
    with temp_dirs.folder("gitea") as folder:
        archive = folder / "gitea.tar"
        gitea_image.write(artifacts, archive)
        wanted = [Wanted(gitea_image.REFERENCE, archive), Wanted(mariadb.reference, mariadb.archive)]
        place, port = folder / "project", free_port()
        write(place, port=port, mariadb=mariadb.reference)
        with engines.running(wanted) as runs, project.up(runs, program, place, timeout=timeout) as up:
            server = Gitea(f"http://127.0.0.1:{port}", folder, None)
            with contextlib.closing(server):
                said = up.exec("server", "gitea", *gitea.NEW_USER, "--config", "/data/app.ini", secret=True)
                server.password = gitea.chosen(said)
                yield Running(up, server)


def trial(artifacts: Resolver) -> Trial:
    """Push a commit, restart Gitea and MariaDB, and look for the commit; raises the errors of `running`."""
    with running(artifacts) as runs:
        shop = Repository.create(runs.server, "shop")
        pushed = shop.push(runs.server.folder / "work", {"README.md": "A shop.\n"}, "the shop")
        _newest(runs.server, shop)
        loaded = sum(int(str(row["kB"])) for row in gitea_pages.loaded(runs.server))
        tables = int(runs.query(_TABLES))
        runs.restart()
        return Trial(tables, pushed, _newest(runs.server, shop), loaded)


def _newest(server: gitea.Gitea, shop: Repository, *, timeout: float = 30.0) -> str:
    """The newest commit, once Gitea has it: it works through pushes one after another, and calls a repository empty until then.

    Raises:
        WaitTimeout: it has none.
        httpx.HTTPStatusError: Gitea refuses.
    """

    def newest() -> str:
        answer = server.client().get(f"/api/v1/repos/{shop.path}/commits?limit=1")
        if answer.status_code == httpx.codes.CONFLICT:
            return ""
        answer.raise_for_status()
        return str(answer.json()[0]["sha"])

    return until(newest, what=f"Gitea to have a commit of {shop.path}", timeout=timeout, every=0.2)
