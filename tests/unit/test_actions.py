"""Gitea's Actions and GitLab CI: the runner's token is on no command line, a run is read as it is, and a slip in a file is found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.redact import Secret
from stackbook.lessons.delivery import actions, gitlab, guide_files
from stackbook.lessons.delivery.actions import Runner

TOKEN = "a-token-of-the-test"
# A runner that registers with what it reads, and then waits until it is ended.
PROGRAM = """#!/bin/sh
case "$*" in
*register*) echo "$*" > argv; read token; echo "$token" > registration ;;
*) exec sleep 600 ;;
esac
"""


class Answer:
    def __init__(self, text: str = "") -> None:
        self.text = text

    def raise_for_status(self) -> None:
        """It is a good answer."""


class Gitea:
    """A Gitea's API with the runs that are given."""

    url = "http://127.0.0.1:3000"

    def __init__(self, runs: list[dict[str, Any]] | None = None, jobs: list[dict[str, Any]] | None = None) -> None:
        self.runs, self.jobs, self.idle = runs or [], jobs or [], True
        self.put_to: list[tuple[str, Any]] = []

    def post(self, path: str, values: Any) -> Any:
        assert path == "/admin/actions/runners/registration-token"
        return {"token": TOKEN}

    def get(self, path: str) -> Any:
        if path.endswith("/runners"):
            return {"runners": [{"name": "lab-runner", "status": "idle"}] if self.idle else []}
        if path.endswith("/jobs"):
            return {"jobs": self.jobs}
        if path.endswith("/status"):
            return {"state": "failure"}
        return {"workflow_runs": self.runs}

    def client(self) -> Gitea:
        return self

    def put(self, path: str, *, json: Any) -> Answer:
        self.put_to.append((path, json))
        return Answer()

    @staticmethod
    def _log() -> Answer:
        return Answer("npm error code EINTEGRITY")


class Shop:
    path = "trainer/shop"

    def __init__(self, gitea: Gitea) -> None:
        self.gitea = gitea


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "runner"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


ENV = {"PATH": "/usr/bin:/bin", "npm_config_offline": "true"}


def test_the_token_is_read_from_standard_input_and_the_runner_ends_with_the_block(program: Path) -> None:
    with actions.running(Gitea(), program, ENV) as runner:  # type: ignore[arg-type]
        assert runner.process.poll() is None
        assert (runner.folder / "registration").read_text().strip() == TOKEN
        assert TOKEN not in (runner.folder / "argv").read_text()
        settings = yaml.safe_load((runner.folder / "config.yaml").read_text())
        assert settings["runner"]["labels"] == ["lab:host"] and not settings["cache"]["enabled"]
        assert settings["runner"]["envs"] == {**ENV, "HOME": str(runner.folder)}
        assert (runner.folder / "config.yaml").stat().st_mode & 0o077 == 0
    assert runner.process.poll() is not None and not runner.folder.exists()


def test_a_runner_that_gitea_refuses_is_an_error_without_the_token(program: Path) -> None:
    program.write_text('#!/bin/sh\nread token; echo "unknown token $token" >&2; exit 1\n')
    with (
        pytest.raises(CheckFailed, match="could not be registered: unknown token …") as caught,
        actions.running(
            Gitea(),
            program,
            ENV,  # type: ignore[arg-type]
        ),
    ):
        raise AssertionError("the block ran")
    assert TOKEN not in str(caught.value)


def test_a_runner_that_exits_or_is_not_listed_says_so(program: Path) -> None:
    gitea = Gitea()
    gitea.idle = False
    with (
        pytest.raises(WaitTimeout, match="the runner to be idle"),
        actions.running(
            gitea,
            program,
            ENV,
            timeout=0.5,  # type: ignore[arg-type]
        ),
    ):
        raise AssertionError("the block ran")
    program.write_text(PROGRAM.replace("exec sleep 600", "echo no; exit 3"))
    with (
        pytest.raises(CheckFailed, match="the runner exited with status 3"),
        actions.running(
            gitea,
            program,
            ENV,
            timeout=20,  # type: ignore[arg-type]
        ),
    ):
        raise AssertionError("the block ran")


def runner(tmp_path: Path) -> Runner:
    (tmp_path / "log").write_text("fetching")
    return Runner(subprocess.Popen(["sleep", "60"]), tmp_path)


def test_the_run_of_a_commit_has_its_steps_without_those_that_gitea_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [("Set up job", "success"), ("clone", "success"), ("npm-install", "failure"), ("build-dist", "skipped"),
             ("Complete job", "failure")]  # fmt: skip
    jobs = [{"id": 7, "steps": [{"name": name, "conclusion": conclusion} for name, conclusion in steps]}]
    runs = [
        {"id": 2, "head_sha": "b", "status": "running"},
        {"id": 1, "head_sha": "a", "status": "completed", "conclusion": "failure"},
    ]
    gitea, waiting = Gitea(runs, jobs), runner(tmp_path)
    monkeypatch.setattr(Gitea, "client", lambda self: type("Client", (), {"get": lambda _self, path: Gitea._log()})())
    try:
        found = actions.wait(Shop(gitea), "a", waiting)  # type: ignore[arg-type]
        assert found.steps == {"clone": "success", "npm-install": "failure", "build-dist": "skipped"}
        assert (found.conclusion, found.commit) == ("failure", "a") and "EINTEGRITY" in found.log
        with pytest.raises(WaitTimeout, match="last seen: running"):
            actions.wait(Shop(gitea), "b", waiting, timeout=0.5)  # type: ignore[arg-type]
        with pytest.raises(WaitTimeout, match="there is no run of this commit"):
            actions.wait(Shop(gitea), "c", waiting, timeout=0.5)  # type: ignore[arg-type]
        assert actions.status(Shop(gitea), "a") == "failure"  # type: ignore[arg-type]
    finally:
        waiting.process.kill()
        waiting.process.wait()
    with pytest.raises(CheckFailed, match="the runner exited with status -9"):
        actions.wait(Shop(gitea), "b", waiting, timeout=5)  # type: ignore[arg-type]


def test_a_secret_goes_to_its_repository() -> None:
    gitea = Gitea()
    actions.secret(Shop(gitea), "DOCKER_PASS", Secret("of-mine"))  # type: ignore[arg-type]
    assert gitea.put_to == [("/api/v1/repos/trainer/shop/actions/secrets/DOCKER_PASS", {"data": "of-mine"})]


def test_the_three_pipelines_do_the_same() -> None:
    drone = yaml.safe_load(guide_files.today("drone-pipeline"))
    commands = [command for step in drone["steps"] for command in step.get("commands", [])]
    workflow = yaml.safe_load(guide_files.today("actions-workflow"))
    steps = {step["name"]: step for step in workflow["jobs"]["build"]["steps"]}
    assert [steps[name]["run"] for name in ("npm-install", "build-dist")] == commands == ["npm ci", "npx quasar build"]
    assert yaml.safe_load(guide_files.today("gitlab-ci"))["build-dist"]["script"] == commands
    assert "npx demo build" in actions.workflow() and "quasar" not in actions.workflow()
    assert set(steps["registry"]["env"].values()) == {"${{ secrets.DOCKER_USER }}", "${{ secrets.DOCKER_PASS }}"}


def test_what_a_schema_refuses_is_one_line_with_its_place(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    jobs = {
        "type": "object",
        "required": ["script"],
        "properties": {"script": {"type": "array"}},
        "additionalProperties": False,
    }
    schema.write_text(json.dumps({"type": "object", "additionalProperties": jobs}))
    assert gitlab.problems("build: {script: [npm ci]}", schema) == []
    assert gitlab.problems("build: {script: 7}", schema) == ["build.script: 7 is not of type 'array'"]
    assert gitlab.problems("a: {}\nb: {script: [x], when: y}", schema) == [
        "a: 'script' is a required property", "b: Additional properties are not allowed ('when' was unexpected)"]  # fmt: skip
    assert gitlab.problems("[]", schema) == ["the file: [] is not of type 'object'"]
    (wrong,) = gitlab.problems("a: *", schema)
    assert wrong.startswith("it is not YAML: ")
