"""Drone: its licence, its settings, what its API says of a build, and the pipeline that it gets. No Drone runs here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.app import cli, open_drone
from stackbook.core.errors import CheckFailed, InputError, StackbookError, WaitTimeout
from stackbook.core.redact import Secret, redact
from stackbook.lessons.delivery import (
    drone,
    drone_builds,
    gitea,
    guide_files,
    oauth,
    pipeline,
    pipeline_image,
)
from stackbook.lessons.delivery.drone import Drone
from stackbook.lessons.delivery.drone_builds import Build, Project

TOKEN, RPC = Secret("the-token-of-the-test"), Secret("the-rpc-secret-of-the-test")
APPLICATION = oauth.Application("Drone", "an-id", Secret("the-clients-secret"), "http://127.0.0.1:9/login")
Answers = dict[tuple[str, str], tuple[int, Any]]


class Api:
    """Drone's API with the given answers; it keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.asked: list[tuple[str, str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                assert self.headers["Authorization"] == f"Bearer {TOKEN.reveal()}"
                api.asked.append((self.command, self.path, json.loads(body) if body else None))
                status, values = api.answers.get((self.command, self.path), (404, {"message": "not found"}))
                text = json.dumps(values).encode() if values is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "60"])
    yield started
    started.kill()
    started.wait()


@pytest.fixture
def project(api: Api, process: subprocess.Popen[bytes], tmp_path: Path) -> Project:
    (tmp_path / "log").write_text(f'{{"token":"{TOKEN.reveal()}"}}')
    url = f"http://127.0.0.1:{api.server.server_port}"
    return Project(Drone(url, tmp_path, process, None, None, TOKEN, RPC), "trainer/shop")  # type: ignore[arg-type]


def build(status: str, *steps: tuple[str, str], **values: Any) -> dict[str, Any]:
    listed = [{"name": name, "status": state} for name, state in steps]
    return {"number": 1, "status": status, "event": "push", "after": "a1", "stages": [{"steps": listed}], **values}


# The licence.


def test_only_an_acceptance_starts_drone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(drone.VARIABLE, raising=False)
    with pytest.raises(InputError, match="is not accepted here: https://") as refused:
        drone.demand_accepted(False, "read it")
    assert refused.value.fix == "read it"
    drone.demand_accepted(True, "")
    for word in ("", "0", "yes", "True"):
        assert not drone.accepted(False, {drone.VARIABLE: word}), word
    assert cli.main(["open", "drone"]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and said.endswith(f"stackbook open drone {open_drone.FLAG}")


def test_no_lab_fetches_drone_unless_it_is_named() -> None:
    from stackbook.artifacts.catalogue_loader import load
    from stackbook.config import chapters

    catalogue = load()
    parts = catalogue.parts(catalogue.default_names())
    assert "drone" not in parts
    assert not any("drone" in chapter.artifacts + chapter.pages for chapter in chapters.ALL)
    assert {"drone", "pipeline-rootfs"} <= set(catalogue.parts(open_drone.COMPONENTS))


# The server.


def test_its_secrets_are_in_its_environment_and_on_no_command_line(tmp_path: Path) -> None:
    server = type("Server", (), {"url": "http://127.0.0.1:3000"})()
    env = drone.environment(tmp_path, "http://127.0.0.1:9", server, APPLICATION, TOKEN, RPC, "unix:///x/engine.sock", 3)
    assert env["DRONE_SERVER_HOST"] == env["DRONE_SERVER_PORT"] == "127.0.0.1:9", "it listens on loopback only"
    assert env["DRONE_USER_FILTER"] == gitea.USER and env["DRONE_CRON_INTERVAL"] == "3s"
    assert env["DRONE_RPC_SECRET"] == RPC.reveal() and env["DOCKER_HOST"] == "unix:///x/engine.sock"
    assert len(env["DRONE_DATABASE_SECRET"]) == 32, "Drone wants 32 characters"
    assert not {name for name in env if name.lower().endswith("_proxy")}


PROGRAM = """#!/bin/sh
echo "$@" > argv
env > environment
echo "the token is $DRONE_USER_CREATE"
exit 3
"""


def test_a_drone_that_exits_says_so_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "drone"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(oauth, "register", lambda *_: APPLICATION)
    server = type("Server", (), {"url": "http://127.0.0.1:3000"})()
    engine = type("Engine", (), {"host": "unix:///x"})()
    with (
        pytest.raises(CheckFailed, match="Drone exited with status 3: the token is") as caught,
        drone.running(program, server, engine),
    ):
        raise AssertionError("the block ran")
    assert "token:***" in str(caught.value) and "***" in redact(str(caught.value))
    assert not list(tmp_path.glob("stackbook-drone-*"))


def test_its_log_is_shown_without_the_token(project: Project) -> None:
    assert project.drone.said() == '{"token":"***"}'


def test_what_drone_refuses_is_one_line_with_its_own_words(project: Project, api: Api) -> None:
    api.answers["POST", "/api/repos/trainer/shop/cron"] = (400, {"message": "Invalid Cronjob Expression"})
    with pytest.raises(
        CheckFailed, match=r"^Drone answers POST /repos/trainer/shop/cron with status 400: .*Invalid Cronjob Exp"
    ):
        project.by_cron("nightly", "each night")


# Builds.


def test_a_build_has_its_steps_and_why_it_did_not_run(project: Project, api: Api) -> None:
    where = "/api/repos/trainer/shop/builds"
    api.answers["GET", where] = (
        200,
        [{"number": 3, "after": "b2"}, {"number": 2, "after": "a1"}, {"number": 1, "after": "a1"}],
    )
    ended = build("failure", ("clone", "success"), ("npm-install", "failure"), ("docker", "skipped"))
    api.answers["GET", f"{where}/1"] = (200, ended)
    found = project.wait(commit="a1", timeout=5)
    assert found == Build(
        1, "failure", "push", "a1", "", {"clone": "success", "npm-install": "failure", "docker": "skipped"}
    )
    with pytest.raises(CheckFailed, match=r"^build 1 ended with failure: its step npm-install failed$"):
        drone_builds.demand_success([found])
    api.answers["GET", f"{where}/3"] = (200, build("error", error="linter:\n  untrusted", stages=None, number=3))
    with pytest.raises(CheckFailed, match=r"^build 3 ended with error: linter: untrusted$"):
        drone_builds.demand_success([project.wait(number=3, timeout=5)])
    api.answers["GET", f"{where}/3"] = (200, build("success", ("clone", "success"), number=3))
    drone_builds.demand_success([project.wait(commit="b2", timeout=5)])


def test_a_wait_has_a_deadline_and_says_what_was_seen(
    project: Project, api: Api, process: subprocess.Popen[bytes]
) -> None:
    where = "/api/repos/trainer/shop/builds"
    api.answers["GET", where] = (200, [])
    with pytest.raises(WaitTimeout, match="a build of c3 to end; last seen: there is no such build"):
        project.wait(commit="c3", timeout=0.5)
    api.answers["GET", f"{where}/1"] = (200, build("running", ("clone", "success"), ("npm-install", "running")))
    with pytest.raises(WaitTimeout, match="build 1 to end; last seen: it is running, in its step npm-install"):
        project.wait(number=1, timeout=0.5)
    process.kill()
    process.wait()
    with pytest.raises(CheckFailed, match="Drone exited with status -9"):
        project.wait(number=1, timeout=5)


def test_a_cron_job_is_deleted_once_it_has_started_a_build_and_also_if_it_has_not(project: Project, api: Api) -> None:
    jobs, where = "/api/repos/trainer/shop/cron", "/api/repos/trainer/shop/builds"
    api.answers |= {("POST", jobs): (200, {}), ("DELETE", f"{jobs}/often"): (204, None)}
    api.answers["GET", where] = (
        200,
        [{"number": 8, "after": "a", "cron": "often"}, {"number": 7, "after": "a", "cron": "often"}],
    )
    assert project.by_cron("often", "* * * * * *") == 7
    assert api.asked[0] == ("POST", jobs, {"name": "often", "expr": "* * * * * *", "branch": "main"})
    assert api.asked[-1][:2] == ("DELETE", f"{jobs}/often")
    api.asked.clear()
    api.answers["GET", where] = (200, [{"number": 9, "after": "a"}])
    with pytest.raises(WaitTimeout, match="the cron job often to start a build"):
        project.by_cron("often", "* * * * * *", timeout=0.4)
    assert api.asked[-1][:2] == ("DELETE", f"{jobs}/often")


def test_the_log_of_a_step_is_found_by_its_place(project: Project, api: Api) -> None:
    made = Build(4, "success", "push", "a", "", {"clone": "success", "docker": "success", "last": "skipped"})
    api.answers["GET", "/api/repos/trainer/shop/builds/4/logs/1/2"] = (200, [{"out": "+ true\n"}, {"out": "done\n"}])
    assert project.log(made, "docker") == ["+ true", "done"] and project.log(made, "last") == []
    with pytest.raises(CheckFailed, match="build 4 has no step npm, but clone, docker, last"):
        project.log(made, "npm")


def test_secrets_and_trust_go_where_drone_has_them(project: Project, api: Api) -> None:
    repo = "/api/repos/trainer/shop"
    api.answers |= {("POST", f"{repo}/secrets"): (200, {}), ("PATCH", repo): (200, {}), ("POST", "/api/user/repos"): (200, []),
                    ("POST", repo): (200, {}), ("POST", f"{repo}/builds"): (200, {"number": 5})}  # fmt: skip
    project.secret("docker_pass", Secret("of-mine"))
    project.trust()
    assert Project.activate(project.drone, project.path) == project and project.start() == 5
    assert api.asked[:2] == [
        ("POST", f"{repo}/secrets", {"name": "docker_pass", "data": "of-mine"}),
        ("PATCH", repo, {"trusted": True}),
    ]
    assert [path for _, path, _ in api.asked[2:4]] == ["/api/user/repos", repo], "first it learns of the repository"


# The pipeline and its image.


def test_drone_gets_todays_pipeline_with_images_that_are_there(tmp_path: Path) -> None:
    text = drone_builds.pipeline(tmp_path)
    mine, todays = pipeline.parse(text), pipeline.parse(guide_files.today("drone-pipeline"))
    assert [step.name for step in mine.steps] == ["clone", *(step.name for step in todays.steps)]
    same = [(step.image, step.settings) for step in todays.steps[:-1]]
    assert [(step.image, step.settings) for step in mine.steps[1:-1]] == same
    assert mine.host_volumes == {"cache": str(tmp_path)}
    raw = yaml.safe_load(text)
    assert {step["pull"] for step in raw["steps"]} == {"never"} and raw["clone"] == {"disable": True}
    names = {
        name.removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
        for name in pipeline_image.NAMES
    }
    assert {step.image for step in mine.steps} <= names, "the engine has each image under its name"
    used = {v["from_secret"] for v in raw["steps"][-1]["environment"].values()}
    assert used == set(todays.secrets), "the last step has the secrets of the guide's"


class Components:
    """The components of the image: a folder with Node.js, and a root file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin/node", "lib/node_modules/npm/bin/npm-cli.js"):
            (folder / "node" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "node" / name).write_text(name)
        with tarfile.open(folder / "pipeline-rootfs", "w") as archive:
            for name, text in (("./var/lib/dpkg/status", ""), ("./usr/bin/git", "git")):
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def cache(tmp_path: Path) -> Callable[..., list[str]]:
    """The plugin of the image, run with a workspace and a cache of this test; returns what it said."""
    pipeline_image.write(Components(tmp_path), tmp_path / "image.tar")  # type: ignore[arg-type]
    found: dict[str, bytes] = {}
    with tarfile.open(tmp_path / "image.tar") as image:
        for data in [_bytes(image, member) for member in image if member.name.startswith("blobs/")]:
            if data[257:262] == b"ustar":
                with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                    found |= {member.name: _bytes(layer, member) for member in layer if member.isfile()}
    assert {"usr/local/bin/node", "usr/local/bin/npx", "usr/local/lib/node_modules/npm/bin/npm-cli.js"} <= set(found)
    text = found["usr/local/bin/volume-cache"].decode().replace("/cache/", f"{tmp_path}/cache/")
    (tmp_path / "volume-cache").write_text(text)
    (tmp_path / "work").mkdir()

    def run(**settings: str) -> list[str]:
        env = {"PATH": os.environ["PATH"], "DRONE_REPO_OWNER": "trainer", "DRONE_REPO_NAME": "shop", **settings}
        done = subprocess.run(["sh", str(tmp_path / "volume-cache")], env=env, cwd=tmp_path / "work", capture_output=True, text=True,
                              check=True)  # fmt: skip
        return done.stdout.splitlines()

    return run


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file
    return file.read()


def test_the_plugin_keeps_each_mount_below_owner_and_repository(
    cache: Callable[..., list[str]], tmp_path: Path
) -> None:
    mounts = {"PLUGIN_MOUNT": "./.npm-cache,./node_modules"}
    assert cache(**mounts, PLUGIN_RESTORE="true") == ["No cache for ./.npm-cache", "No cache for ./node_modules"]
    (tmp_path / "work/node_modules/.bin").mkdir(parents=True)
    (tmp_path / "work/node_modules/.bin/demo").symlink_to("../demo.js")
    assert cache(**mounts, PLUGIN_REBUILD="true") == [
        "No cache for ./.npm-cache",
        "Rebuilding cache for ./node_modules",
    ]
    kept = tmp_path / "cache/trainer/shop/node_modules"
    assert (kept / ".bin/demo").is_symlink()
    (tmp_path / "work/node_modules/old").write_text("what the cache does not have")
    assert "Restoring cache for ./node_modules" in cache(**mounts, PLUGIN_RESTORE="true")
    assert sorted(path.name for path in (tmp_path / "work/node_modules").iterdir()) == [".bin"]


# The page.


class Part:
    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder, self.url, self.password = folder, url, Secret("giteas-password")
        self.process = type("Process", (), {"poll": lambda _: 1 if self.gone else None})()
        self.gone = False


def test_open_prints_no_password_and_ends_when_one_of_them_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    from stackbook.lessons.delivery import drone_shop

    parts = [Part(tmp_path, "http://127.0.0.1:1"), Part(tmp_path, "http://127.0.0.1:2"), Part(tmp_path)]
    parts[1].engine = parts[2]  # type: ignore[attr-defined]
    pushed: list[bool] = []
    running = type("Shop", (), {"gitea": parts[0], "drone": parts[1], "repository": type("R", (), {"path": "trainer/shop"}),
                                "push": lambda _: pushed.append(True)})()  # fmt: skip
    monkeypatch.setattr(drone_shop, "running", lambda *_: contextlib.nullcontext(running))
    monkeypatch.setattr(gitea.Parts, "of", classmethod(lambda cls, _: cls(tmp_path, tmp_path, tmp_path)))
    monkeypatch.setattr(open_drone, "pause", lambda _: setattr(parts[1], "gone", True))
    artifacts = type("Artifacts", (), {"path": lambda _, name: tmp_path / name})()
    said: list[str] = []
    opened: list[str] = []
    with pytest.raises(StackbookError, match="the page of Drone has ended: Drone has exited"):
        open_drone.serve(artifacts, lambda address, _: opened.append(address), say=said.append, environment={})
    assert opened == ["http://127.0.0.1:2"] and pushed and any(line.startswith("http://127.0.0.1:2\n") for line in said)
    assert "giteas-password" not in "".join(said)
    assert (tmp_path / "password").read_text() == "giteas-password" and (
        tmp_path / "password"
    ).stat().st_mode & 0o077 == 0
