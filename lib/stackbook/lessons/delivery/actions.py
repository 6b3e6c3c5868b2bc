"""Gitea's Actions: the official runner at a running Gitea, and what came of a push.

The runner asks Gitea for work and runs it on this host (the kind `host` of its labels), in a folder that is removed with it.
https://docs.gitea.com/usage/actions/act-runner, https://docs.gitea.com/api (group repository, /actions)
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackbook.artifacts import go_toolchain
from stackbook.core import observed, private, temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lessons.delivery import guide_files
from stackbook.lessons.delivery.gitea import Gitea
from stackbook.lessons.delivery.repository import Repository

LABEL = "lab"
WORKFLOW = ".gitea/workflows/build.yaml"
_ADDED = ("Set up job", "Complete job")
"""The steps that Gitea adds to those of the workflow."""


@dataclass(frozen=True)
class Run:
    """A finished run of a workflow.

    Attributes:
        commit: the commit that was built.
        conclusion: success, failure or cancelled.
        steps: step → its conclusion (success, failure, skipped), in the order of the workflow.
        log: everything that the steps printed.
    """

    commit: str
    conclusion: str
    steps: Mapping[str, str]
    log: str


@dataclass
class Runner:
    """A running runner: its process, and the folder with its settings, its log and its jobs."""

    process: subprocess.Popen[bytes]
    folder: Path

    def said(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


def workflow() -> str:
    """Today's pipeline as a workflow, with the lab's small program in the place of @quasar/cli."""
    return guide_files.today("actions-workflow").replace("npx quasar build", "npx demo build")


@contextlib.contextmanager
def running(
    server: Gitea, program: Path, environment: Mapping[str, str], *, label: str = LABEL, timeout: float = 30.0
) -> Iterator[Runner]:
    """Register a runner at Gitea and run it while the block runs; afterwards it is stopped, and its folder is removed.

    Args:
        server: a running Gitea.
        program: the runner.
        environment: the environment of the jobs' commands.
        label: it takes the jobs that name this label (`runs-on`).
        timeout: deadline in seconds.

    Raises:
        CheckFailed: the runner could not be registered, or has exited.
        WaitTimeout: Gitea does not list it as idle in time; the error has the end of its log.
    """
    with temp_dirs.folder("runner") as folder:
        config, env = folder / "config.yaml", {**environment, "HOME": str(folder)}
        private.write(config, yaml.safe_dump(settings(folder, env, label)))
        _register(server, program, config, env, f"{label}-runner")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                go_toolchain.guarded([str(program), "--config", str(config), "daemon"]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder,
            )  # fmt: skip
        observed.tell([str(program), "--config", str(config), "daemon"], background=True)
        runner = Runner(process, folder)
        try:
            until(
                lambda: _idle(server, runner, f"{label}-runner"),
                what="the runner to be idle",
                timeout=timeout,
                every=0.2,
                cause=runner.said,
            )
            yield runner
        finally:
            end(process, steps=((signal.SIGTERM, 15.0),))


def settings(folder: Path, env: Mapping[str, str], label: str) -> dict[str, Any]:
    """The settings of a runner that works in a folder: one job at a time, as processes where the runner itself is.

    Args:
        folder: gets the registration and the jobs.
        env: the environment of the jobs' commands, beside the runner's own.
        label: it takes the jobs that name this label (`runs-on`).
    """
    return {
        "log": {"level": "info"},
        "runner": {
            "file": str(folder / "registration"), "labels": [f"{label}:host"], "envs": dict(env), "env_file": "",
            "fetch_interval": "500ms", "fetch_interval_max": "500ms", "log_report_interval": "1s",
            "log_report_max_latency": "500ms", "state_report_interval": "500ms", "timeout": "10m",
        },
        "cache": {"enabled": False},
        "host": {"workdir_parent": str(folder / "jobs")},
    }  # fmt: skip


def _register(server: Gitea, program: Path, settings: Path, env: Mapping[str, str], name: str) -> None:
    """Register the runner. It reads the token from its standard input, so the token is on no command line."""
    token = Secret(str(server.post("/admin/actions/runners/registration-token", {})["token"]))
    argv = [str(program), "--config", str(settings), "register", "--instance", server.url, "--name", name]
    done = subprocess.run(
        argv, input=f"{token.reveal()}\n", env=dict(env), cwd=settings.parent, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    observed.tell(argv, rc=done.returncode, given=b"***\n")
    if done.returncode != 0 or not (settings.parent / "registration").exists():
        said = (done.stdout + done.stderr).replace(token.reveal(), "…").strip().splitlines()[-3:]
        raise CheckFailed(f"the runner could not be registered: {' / '.join(said)}")


def _idle(server: Gitea, runner: Runner, name: str) -> bool:
    if runner.process.poll() is not None:
        raise CheckFailed(f"the runner exited with status {runner.process.returncode}: {runner.said()}")
    listed = server.get("/v1/admin/actions/runners")["runners"]
    return any(one["name"] == name and one["status"] in ("online", "idle") for one in listed)


def secret(repository: Repository, name: str, value: Secret) -> None:
    """Store a secret of a repository in Gitea, which never shows it again; a workflow uses it by its name."""
    answer = repository.gitea.client().put(
        f"/api/v1/repos/{repository.path}/actions/secrets/{name}", json={"data": value.reveal()}
    )
    answer.raise_for_status()


def variable(repository: Repository, name: str, value: str) -> None:
    """Set a variable of a repository, which everybody who reads it may see; a workflow uses it by its name."""
    answer = repository.gitea.client().post(
        f"/api/v1/repos/{repository.path}/actions/variables/{name}", json={"value": value}
    )
    answer.raise_for_status()


def wait(repository: Repository, commit: str, runner: Runner, *, timeout: float = 90.0) -> Run:
    """Wait for the run of a commit.

    Raises:
        WaitTimeout: it has not ended in time; the error has its last state and the end of the runner's log.
        CheckFailed: the runner has exited.
    """
    state = "there is no run of this commit"

    def ended() -> dict[str, Any] | None:
        nonlocal state
        if runner.process.poll() is not None:
            raise CheckFailed(f"the runner exited with status {runner.process.returncode}: {runner.said()}")
        runs = repository.gitea.get(f"/v1/repos/{repository.path}/actions/runs")["workflow_runs"]
        mine = next((run for run in runs if run["head_sha"] == commit), None)
        state = mine["status"] if mine else state
        return mine if mine and mine["status"] == "completed" else None

    done = until(ended, what=f"the run of {commit[:8]} to end", timeout=timeout, every=0.3, last=lambda: state,
                 cause=runner.said)  # fmt: skip
    (job,) = repository.gitea.get(f"/v1/repos/{repository.path}/actions/runs/{done['id']}/jobs")["jobs"]
    answer = repository.gitea.client().get(f"/api/v1/repos/{repository.path}/actions/jobs/{job['id']}/logs")
    answer.raise_for_status()
    steps = {step["name"]: step["conclusion"] for step in job["steps"] if step["name"] not in _ADDED}
    return Run(commit, done["conclusion"], steps, answer.text)


def status(repository: Repository, commit: str) -> str:
    """The state that Gitea shows beside a commit: pending, success or failure."""
    return str(repository.gitea.get(f"/v1/repos/{repository.path}/commits/{commit}/status")["state"])
