"""A real Gitea in its own process, on a free loopback port, with all its files in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import observed, private, temp_dirs
from stackbook.core.child_processes import end, free_port
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.core.waiting import until

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

USER = "trainer"
NEW_USER = ("admin", "user", "create", "--admin", "--username", USER, "--email", f"{USER}@example.com",
            "--must-change-password=false", "--random-password")  # fmt: skip
"""The arguments that create the administrator; Gitea itself chooses the password, so that it is on no command line."""

# Gitea's settings before its first start. It makes no outside requests: no mail, no update check, no external avatars.
_INI = """\
RUN_MODE = prod
WORK_PATH = {folder}

[server]
PROTOCOL = http
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
STATIC_ROOT_PATH = {static}
DISABLE_SSH = true
OFFLINE_MODE = true

[database]
DB_TYPE = sqlite3
PATH = {folder}/gitea.db

[security]
INSTALL_LOCK = true

[service]
DISABLE_REGISTRATION = true

[webhook]
ALLOWED_HOST_LIST = loopback

[queue]
; in memory: those on disk, the default, are looked into every 2 s when little happens
TYPE = channel

[actions]
ENABLED = true

[cron]
ENABLED = false

[log]
LEVEL = Warn
"""


@dataclass(frozen=True)
class Parts:
    """The program, and the folders of files that are embedded in an official release.

    `pages` are the styles and scripts of its web pages; None if they are not built yet, for which nobody waits.
    """

    program: Path
    templates: Path
    options: Path
    pages: Path | None = None

    @classmethod
    def of(cls, artifacts: Resolver) -> Parts:
        """Get the parts from the lab's catalogue, and build them if needed.

        Raises:
            ArtifactError: they cannot be obtained.
        """
        program, templates, options = (artifacts.path(name) for name in ("gitea", "gitea-templates", "gitea-options"))
        return cls(program, templates, options, artifacts.at_hand("gitea-pages"))


@dataclass
class Gitea:
    """A running Gitea.

    Attributes:
        url: its address, without a slash at the end.
        folder: everything that it writes.
        process: the process; None where a container runs it.
        ready: seconds from its start to its first good answer.
        password: the password of its only user, the administrator `trainer`.
    """

    url: str
    folder: Path
    process: subprocess.Popen[bytes] | None
    password: Secret = field(default_factory=lambda: Secret(""))
    ready: float = 0.0
    _clients: list[httpx.Client] = field(default_factory=list)

    @property
    def host(self) -> str:
        """host:port."""
        return self.url.removeprefix("http://")

    def client(self, *, signed_in: bool = False) -> httpx.Client:
        """A client of this server; with `signed_in`, it has the cookies of a browser after the user signed in.

        Raises:
            CheckFailed: the server refused the password.
        """
        auth = None if signed_in else httpx.BasicAuth(USER, self.password.reveal())
        client = httpx.Client(base_url=self.url, auth=auth, timeout=20, trust_env=False, event_hooks=TOLD)
        self._clients.append(client)
        if signed_in:
            answer = client.post("/user/login", data={"user_name": USER, "password": self.password.reveal()})
            if answer.status_code not in (302, 303):
                raise CheckFailed(f"signing in to Gitea gave status {answer.status_code}")
        return client

    def get(self, path: str) -> Any:
        """The JSON of a GET below /api.

        Raises:
            httpx.HTTPStatusError: the status is not 2xx.
        """
        answer = self.client().get(f"/api{path}")
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, values: Mapping[str, Any]) -> Any:
        """The JSON of a POST below /api/v1; raises the errors of `get`."""
        answer = self.client().post(f"/api/v1{path}", json=dict(values))
        answer.raise_for_status()
        return answer.json()

    def swagger(self) -> Any:
        """The description of its API (Swagger 2.0) that it serves."""
        answer = self.client().get("/swagger.v1.json")
        answer.raise_for_status()
        return answer.json()

    def memory(self) -> int:
        """Its resident memory in bytes, from /proc (proc(5), VmRSS)."""
        if self.process is None:
            raise CheckFailed("Gitea runs in a container: its engine knows the memory")
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        if not found:
            raise CheckFailed("Gitea's process uses no memory: it has exited")
        return int(found[1]) * 1024

    def close(self) -> None:
        """Close the connections of its clients."""
        for client in self._clients:
            client.close()

    def log(self) -> str:
        """The end of its console output."""
        return (self.folder / "console.log").read_text(encoding="utf-8", errors="replace")[-2000:]


def _tell(answer: httpx.Response) -> None:
    """Tell of a request as a command; the parameters of a page's address are left out."""
    request = answer.request
    api = request.url.path.startswith("/api/")
    kind = request.headers.get("content-type", "")
    text = request.content.decode() if kind == "application/json" else ""
    signed = request.headers.get("authorization", "")
    who, token = USER if signed.startswith("Basic") else "", signed.startswith("Bearer")
    address = str(request.url if api else request.url.copy_with(query=None))
    observed.request(request.method, address, json=text, form=kind.endswith("form-urlencoded"), user=who, token=token)


TOLD = {"response": [_tell]}
"""The hooks of a client whose requests a step shows."""


def environment(folder: Path) -> dict[str, str]:
    """The environment of Gitea's processes: nothing of the user's, and git's configuration in `folder`."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "USER": "root", "LC_ALL": "C.UTF-8"}
    if os.geteuid() == 0:  # it serves only loopback, from a temporary folder; a real server should run as its own user
        env["GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT"] = "true"
    else:
        import getpass

        env["USER"] = getpass.getuser()
    return env


@contextlib.contextmanager
def running(parts: Parts, *, timeout: float = 60.0) -> Iterator[Gitea]:
    """Run Gitea while the block runs; afterwards, stop it and remove its folder.

    Raises:
        WaitTimeout: it did not answer within `timeout` seconds; the error has the end of its log.
        CheckFailed: git is missing, or the user could not be created.
    """
    if shutil.which("git") is None:
        raise CheckFailed("git is not installed, but Gitea needs it", fix="apt-get install git")
    with temp_dirs.folder("gitea") as folder:
        port = free_port()
        static = folder / "static"
        static.mkdir()
        (static / "templates").symlink_to(parts.templates)
        (static / "options").symlink_to(parts.options)
        (static / "public").mkdir()
        if parts.pages:
            (static / "public" / "assets").symlink_to(parts.pages)
        ini = folder / "app.ini"
        private.write(ini, _INI.format(folder=folder, port=port, static=static))  # Gitea adds its own keys to it
        env = environment(folder)
        with (folder / "console.log").open("wb") as console:
            start = time.monotonic()
            process = subprocess.Popen(
                go_toolchain.guarded([str(parts.program), "web", "--config", str(ini)]),
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, env=env, cwd=folder,
            )  # fmt: skip
            observed.tell([str(parts.program), "web", "--config", str(ini)], background=True)
            server = Gitea(f"http://127.0.0.1:{port}", folder, process)
            try:
                until(lambda: _healthy(server), what="Gitea to be healthy", timeout=timeout, every=0.1,
                      cause=server.log, tolerate=(httpx.TransportError,))  # fmt: skip
                server.ready = time.monotonic() - start
                server.password = _make_user(parts, ini, env)
                yield server
            finally:
                end(process, steps=((signal.SIGTERM, 15.0),))
                server.close()


def _healthy(server: Gitea) -> bool:
    if server.process and server.process.poll() is not None:
        raise CheckFailed(f"Gitea exited with status {server.process.returncode}: {server.log()}")
    answer = httpx.get(f"{server.url}/api/healthz", timeout=5, trust_env=False)
    return answer.status_code == 200 and answer.json()["status"] == "pass"


def _make_user(parts: Parts, ini: Path, env: Mapping[str, str]) -> Secret:
    """Create the administrator; Gitea itself chooses the password, so that it is on no command line."""
    argv = [str(parts.program), *NEW_USER, "--config", str(ini)]
    return chosen(go_toolchain.call(argv, env=env, cwd=ini.parent, timeout=60, secret=True).reveal())


def chosen(said: str) -> Secret:
    """The password in what `gitea admin user create --random-password` prints.

    Raises:
        CheckFailed: there is none.
    """
    found = re.search(r"generated random password is '(.+)'", said)
    if not found:
        raise CheckFailed("Gitea created a user, but did not print the password that it chose")
    return Secret(found[1])


def first_start_only(setup: str) -> list[str]:
    """The variables that the official image's setup script uses only if there is no app.ini yet.

    Args:
        setup: the script (artifact `gitea-docker-setup`).
    """
    guarded = re.search(r"^if \[ ! -f \S*/app\.ini \]; then$(.*?)^fi$", setup, re.MULTILINE | re.DOTALL)
    return re.findall(r"^ {4}(\w+)=\$\{", guarded[1], re.MULTILINE) if guarded else []


def edited_ini(parts: Parts, start: str, env: Mapping[str, str]) -> str:
    """Apply an environment to an app.ini with `gitea config edit-ini --apply-env`.

    The official image does this on every start.
    """
    with temp_dirs.folder("gitea") as folder:
        private.write(folder / "app.ini", start)
        argv = [str(parts.program), "config", "edit-ini", "--config", str(folder / "app.ini"), "--apply-env",
                "--out", str(folder / "out.ini")]  # fmt: skip
        go_toolchain.call(argv, env={**environment(folder), **env}, cwd=folder, timeout=60)
        return (folder / "out.ini").read_text(encoding="utf-8")
