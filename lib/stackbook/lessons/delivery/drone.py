"""A real Drone beside a running Gitea: on a free loopback port, with SQLite in a temporary folder and its embedded runner.

It is built from its Go module. Drone's Non-Commercial License covers parts of it, so it is started only where the user has
accepted that licence: `demand_accepted`. Settings: https://docs.drone.io/server/reference/
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import health, observed, temp_dirs
from stackbook.core.child_processes import end, free_port
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.redact import Secret, redact
from stackbook.core.waiting import until
from stackbook.lessons.containers import engine as engines
from stackbook.lessons.containers import namespaces, ports
from stackbook.lessons.containers.image_store import Wanted
from stackbook.lessons.delivery import oauth, openssl, pipeline_image
from stackbook.lessons.delivery.gitea import TOLD, USER, Gitea

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver
    from stackbook.lessons.containers.engine import Engine

LICENCE = "https://github.com/drone/drone/blob/v1.10.1/LICENSE"
VARIABLE = "STACKBOOK_ACCEPT_DRONE_LICENCE"
"""The environment variable that accepts the licence for tests, which execute a notebook as it is."""
SIGNATURE = "X-Gitea-Signature"


def accepted(parameter: bool = False, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the licence is accepted: by the chapter's parameter or the command's flag, or by `VARIABLE`.

    >>> accepted(False, {}), accepted(True, {}), accepted(False, {VARIABLE: "true"}), accepted(False, {VARIABLE: "no"})
    (False, True, True, False)
    """
    return parameter or environment.get(VARIABLE) == "true"


def demand_accepted(parameter: bool, how: str) -> None:
    """Refuse to go on without the user's acceptance.

    Args:
        parameter: whether the user has accepted the licence.
        how: how to accept it, as the fix of the error.

    Raises:
        InputError: the licence is not accepted.
    """
    if not accepted(parameter):
        raise InputError(f"Drone's licence is not free for every use, and is not accepted here: {LICENCE}", fix=how)


@dataclass
class Drone:
    """A running Drone.

    Attributes:
        url: its address, without a slash at the end.
        folder: everything that it writes.
        process: the process.
        engine: runs the containers of its pipelines' steps.
        gitea: where its users sign in.
        token: the user's token for the API.
        rpc_secret: the secret that it shares with runners.
        ready: seconds from its start to its first good answer.
    """

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    engine: Engine
    gitea: Gitea
    token: Secret
    rpc_secret: Secret
    ready: float = 0.0

    @property
    def host(self) -> str:
        """host:port."""
        return self.url.removeprefix("http://")

    def ask(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer below /api; None if it has no body.

        Raises:
            CheckFailed: the status is not 2xx; the message has Drone's own.
        """
        headers = {"Authorization": f"Bearer {self.token.reveal()}"}
        with httpx.Client(
            base_url=f"{self.url}/api", headers=headers, timeout=30, trust_env=False, event_hooks=TOLD
        ) as client:
            answer = client.request(method, path, json=dict(values) if values is not None else None)
        if not answer.is_success:
            raise CheckFailed(
                f"Drone answers {method} {path} with status {answer.status_code}: {answer.text.strip()[:200]}"
            )
        return answer.json() if answer.content else None

    def sign_in(self) -> list[dict[str, Any]]:
        """Sign in through Gitea like a browser; returns the hops. Only then Drone can ask Gitea for the user's repositories.

        Raises:
            CheckFailed: the login did not end on Drone's page, as this user.
        """
        hops: list[dict[str, Any]] = []
        names = {self.host: "Drone", self.gitea.host: "Gitea"}

        def hop(answer: httpx.Response) -> httpx.Response:
            request, target = answer.request, urlsplit(answer.headers.get("location", ""))
            asked = names[f"{request.url.host}:{request.url.port}"]
            where = f"{names.get(target.netloc, target.netloc)}, {target.path}" if target.netloc else target.path
            hops.append({"asked": asked, "for": f"{request.method} {request.url.path}", "status": answer.status_code,
                         "sends the browser to": where})  # fmt: skip
            return answer

        browser = self.gitea.client(signed_in=True)
        answer = hop(browser.get(f"{self.url}/login"))
        asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
        answer = hop(browser.get(answer.headers["location"]))
        if answer.status_code == 200:  # Gitea asks once whether the user lets Drone in
            form = {name: asked.get(name, "") for name in ("client_id", "redirect_uri", "state", "scope", "nonce")}
            answer = hop(browser.post("/login/oauth/grant", data={**form, "granted": "true"}))
        back = answer.headers.get("location", "")
        if not back.startswith(f"{self.url}/login?"):
            raise CheckFailed(f"Gitea does not send the browser back to Drone: status {answer.status_code}")
        hop(browser.get(back))
        answer = browser.get(f"{self.url}/api/user")
        if answer.status_code != 200 or answer.json().get("login") != USER:
            raise CheckFailed(f"{USER} is not signed in to Drone: status {answer.status_code}")
        return hops

    def ping(self, secret: Secret) -> int:
        """The status of the answer to a runner's first request, over http and with this secret in a header."""
        headers = {"X-Drone-Token": secret.reveal()}
        return httpx.post(f"{self.url}/rpc/v2/ping", headers=headers, timeout=20, trust_env=False).status_code

    def said(self) -> str:
        """The end of its log."""
        return redact((self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:])


@contextlib.contextmanager
def started(artifacts: Resolver, server: Gitea, *, cron: int = 2) -> Iterator[Drone]:
    """Run Drone with an engine for its steps while the block runs; nobody is signed in yet. See `running` for the errors.

    Args:
        artifacts: the lab's components; a missing one is built.
        server: a running Gitea.
        cron: seconds between two looks at the cron jobs.
    """
    namespaces.demand()
    program = artifacts.path("drone")
    port = int(server.url.rpartition(":")[2])
    with temp_dirs.folder("image") as folder:
        image = Wanted(pipeline_image.REFERENCE, folder / "pipeline.tar", pipeline_image.NAMES)
        pipeline_image.write(artifacts, image.archive)
        with (
            engines.running([image]) as engine,
            ports.reachable(engine, [port]),
            running(program, server, engine, cron=cron) as drone,
        ):
            yield drone


@contextlib.contextmanager
def running(program: Path, server: Gitea, engine: Engine, *, cron: int = 2, timeout: float = 30.0) -> Iterator[Drone]:
    """Register Drone at Gitea and run it while the block runs; afterwards, stop it and remove its folder.

    Args:
        program: the server.
        server: a running Gitea.
        engine: runs the containers of the steps.
        cron: seconds between two looks at the cron jobs.
        timeout: deadline in seconds.

    Raises:
        CheckFailed: it has exited.
        WaitTimeout: it does not answer in time; the error has the end of its log.
    """
    with temp_dirs.folder("drone") as folder:
        url = f"http://127.0.0.1:{free_port()}"
        application = oauth.register(server, "Drone", f"{url}/login")
        token, rpc = openssl.rand_hex(16), openssl.rand_hex(16)
        settings = environment(folder, url, server, application, token, rpc, engine.host, cron)
        start = time.monotonic()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                go_toolchain.guarded([str(program), "--env-file", os.devnull]), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, cwd=folder, env=settings,
            )  # fmt: skip
        shown = [f"{name}={value}\n" for name, value in sorted(settings.items()) if name.startswith("DRONE_")]
        # By hand they are in a file; on a command line, everybody on this host could read them.
        observed.wrote(folder / "drone.env", "".join(shown))
        observed.tell([str(program), "--env-file", "drone.env"], folder=folder, background=True)
        drone = Drone(url, folder, process, engine, server, token, rpc)
        try:
            until(lambda: _answers(drone), what="Drone to answer", timeout=timeout, every=0.1, cause=drone.said)
            drone.ready = time.monotonic() - start
            yield drone
        finally:
            end(process, steps=((signal.SIGTERM, 5.0),))


def environment(
    folder: Path, url: str, server: Gitea, application: oauth.Application, token: Secret, rpc: Secret, engine: str, cron: int,
) -> dict[str, str]:  # fmt: skip
    """Drone's whole environment. Its secrets are on no command line; of these, Drone writes only the token to its log."""
    host = url.removeprefix("http://")
    return {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C.UTF-8",
        "DRONE_SERVER_HOST": host, "DRONE_SERVER_PROTO": "http", "DRONE_SERVER_PORT": host,
        "DRONE_GITEA_SERVER": server.url, "DRONE_GITEA_CLIENT_ID": application.client_id,
        "DRONE_GITEA_CLIENT_SECRET": application.client_secret.reveal(),
        "DRONE_USER_CREATE": f"username:{USER},admin:true,token:{token.reveal()}", "DRONE_USER_FILTER": USER,
        "DRONE_DATABASE_DRIVER": "sqlite3", "DRONE_DATABASE_DATASOURCE": str(folder / "drone.sqlite"),
        "DRONE_DATABASE_SECRET": openssl.rand_hex(16).reveal(), "DRONE_RPC_SECRET": rpc.reveal(),
        "DRONE_COOKIE_SECRET": openssl.rand_hex(16).reveal(),
        "DRONE_AGENTS_DISABLED": "true",  # then its embedded runner works
        "DRONE_CRON_INTERVAL": f"{cron}s", "DRONE_DATADOG_ENABLED": "false",
        "DOCKER_HOST": engine, "DOCKER_API_VERSION": "1.40",
    }  # fmt: skip


def _answers(drone: Drone) -> bool:
    if drone.process.poll() is not None:
        raise CheckFailed(f"Drone exited with status {drone.process.returncode}: {drone.said()}")
    return health.answers(f"{drone.url}/healthz", timeout=5)
