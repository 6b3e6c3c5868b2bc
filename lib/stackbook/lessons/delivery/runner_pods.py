"""Gitea's runner on Kubernetes: a Deployment whose pods share the jobs of pushes.

Each pod registers itself at Gitea, and runs its jobs inside its own container (the kind `host` of its labels).
https://docs.gitea.com/usage/actions/act-runner, https://docs.gitea.com/api (group repository, /actions)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lessons.delivery import actions
from stackbook.lessons.delivery.release.access import NAMESPACE
from stackbook.lessons.delivery.repository import Repository

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lessons.delivery.gitea import Gitea

LABEL = "cluster"
IMAGE = "runner"
SELECTOR = "app=runner"
WORKFLOW = ".gitea/workflows/test.yaml"
COMMITS = 4
SECONDS = 2
# The image has busybox's shell and no bash. `sleep` stands for a test that waits, for example for a service.
_TEXT = """\
# {path}: one job for each commit
name: test
on: [push]
jobs:
  test:
    runs-on: {label}
    timeout-minutes: 2
    defaults:
      run:
        shell: sh
    steps:
      - name: test
        run: sleep {seconds}; echo "${{{{ github.sha }}}} was tested on $HOSTNAME"
"""


@dataclass(frozen=True)
class Job:
    """A finished job.

    Attributes:
        commit: the commit that it tested.
        runner: the runner that took it.
        conclusion: success, failure or cancelled.
        began: seconds since the epoch.
        ended: seconds since the epoch.
    """

    commit: str
    runner: str
    conclusion: str
    began: float
    ended: float


@dataclass
class Runners:
    """The Deployment, and the repository whose pushes its pods build.

    Attributes:
        kube: the cluster.
        server: Gitea.
        repository: has a workflow with one job for each commit.
        work: the folder from which it is pushed.
    """

    kube: Kube
    server: Gitea
    repository: Repository
    work: Path

    def scale(self, count: int, *, timeout: float = 90.0) -> list[str]:
        """Let this many pods run, and wait until Gitea lists each as online; returns their names.

        Raises:
            WaitTimeout: it does not in time; the error has the pods' events and the end of a log.
        """
        self.kube.kubectl("scale", "deployment/runner", f"--replicas={count}", "-n", NAMESPACE)
        self.kube.wait_pods(NAMESPACE, SELECTOR, count=count, timeout=timeout)
        online: set[str] = set()

        def all_online() -> list[str]:
            nonlocal online
            pods = [pod["metadata"]["name"] for pod in self.kube.pods(NAMESPACE, SELECTOR)]
            listed = self.server.get("/v1/admin/actions/runners")["runners"]
            online = {one["name"] for one in listed if one["status"] in ("online", "idle", "active")}
            return sorted(pods) if set(pods) <= online else []

        return until(
            all_online,
            what=f"{count} runners to be online",
            timeout=timeout,
            every=0.3,
            last=lambda: f"online: {', '.join(sorted(online)) or 'none'}",
            cause=lambda: self.kube.explain(NAMESPACE, SELECTOR),
        )

    def build(self, *, timeout: float = 120.0) -> list[Job]:
        """Push commits one after the other, each to a branch of its own, and wait until the job of each has ended.

        Of two pushes to the same branch, one after the other, Gitea may build only the second.

        Raises:
            WaitTimeout: they have not in time; the error has their states.
        """
        commits = []
        for _ in range(COMMITS):
            number = len(list(self.work.glob("change-*"))) + 1
            files = {WORKFLOW: workflow(), f"change-{number}": f"{number}\n"}
            commits.append(self.repository.push(self.work, files, f"change {number}", branch=f"change-{number}"))
        path, state = f"/v1/repos/{self.repository.path}/actions", ""

        def ended() -> list[dict[str, Any]]:
            nonlocal state
            runs = {run["head_sha"]: run for run in self.server.get(f"{path}/runs")["workflow_runs"]}
            mine = [(commit, runs[commit]["status"] if commit in runs else "no run") for commit in commits]
            state = ", ".join(f"{commit[:8]}: {status}" for commit, status in mine)
            if any(status != "completed" for _, status in mine):
                return []
            return [self.server.get(f"{path}/runs/{runs[commit]['id']}/jobs")["jobs"][0] for commit in commits]

        found = until(ended, what=f"the jobs of {COMMITS} commits to end", timeout=timeout, every=0.3, last=lambda: state,
                      cause=lambda: self.kube.explain(NAMESPACE, SELECTOR))  # fmt: skip
        return [
            Job(
                commit,
                job["runner_name"],
                job["conclusion"],
                _seconds(job["started_at"]),
                _seconds(job["completed_at"]),
            )
            for commit, job in zip(commits, found, strict=True)
        ]

    def available(self) -> bool:
        """Whether the Deployment says that it is available."""
        status = self.kube.json("get", "deployment", "runner", "-n", NAMESPACE)["status"]
        return any(one["type"] == "Available" and one["status"] == "True" for one in status["conditions"])


def deploy(lab: Lab, server: Gitea, address: str, work: Path) -> Runners:
    """Make the Secret, the Deployment and the repository; the namespace, which must exist, takes the first two with it.

    Args:
        lab: the lab.
        server: a running Gitea.
        address: where the pods reach it, host:port.
        work: a folder for the repository; it is created.

    Raises:
        StackbookError: a part cannot be made.
    """
    lab.images.load(IMAGE)
    token = Secret(str(server.post("/admin/actions/runners/registration-token", {})["token"]))
    values = {
        "url": f"http://{address}",
        "config.yaml": yaml.safe_dump(actions.settings(Path("/data"), {}, LABEL)),
        "token": f"{token.reveal()}\n",
    }
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "runner", "namespace": NAMESPACE}, "stringData": values,
    }  # fmt: skip
    lab.kube.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(secret), secret=True)
    lab.kube.apply(manifests.render("gitea-runner.yaml", image_runner=lab.images.reference(IMAGE)))
    return Runners(lab.kube, server, Repository.create(server, "crowd"), work)


def workflow() -> str:
    """The workflow."""
    return _TEXT.format(path=WORKFLOW, label=LABEL, seconds=SECONDS)


def at_once(jobs: Sequence[Job]) -> int:
    """The largest number of jobs that ran at the same time; Gitea's times are whole seconds.

    >>> at_once([Job("1", "a", "success", 0, 2), Job("2", "a", "success", 2, 4), Job("3", "b", "success", 1, 3)])
    2
    """
    moments = sorted([(job.began, 1) for job in jobs] + [(job.ended, -1) for job in jobs])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


def row(pods: Sequence[str], jobs: Sequence[Job]) -> dict[str, Any]:
    """A build as a row: pods, jobs, how many runners took one, how many jobs ran at once, and the seconds of it all.

    Raises:
        CheckFailed: a job did not succeed.
    """
    failed = [f"{job.commit[:8]} on {job.runner}: {job.conclusion}" for job in jobs if job.conclusion != "success"]
    if failed:
        raise CheckFailed(f"a job did not succeed: {'; '.join(failed)}")
    return {
        "pods": len(pods),
        "jobs": len(jobs),
        "runners that took one": len({job.runner for job in jobs}),
        "at once": at_once(jobs),
        "s": max(job.ended for job in jobs) - min(job.began for job in jobs),
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
