"""Runners on Kubernetes: what is asked of Gitea and of the cluster, how a build is counted, and what a failure says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.lessons.delivery import runner_pods
from stackbook.lessons.delivery.runner_pods import Job, Runners


def job(number: int, runner: str, began: int, *, conclusion: str = "success") -> dict[str, Any]:
    """A job as Gitea's API has it."""
    times = {"started_at": f"2026-01-01T00:00:{began:02}Z", "completed_at": f"2026-01-01T00:00:{began + 2:02}Z"}
    return {"id": number, "runner_name": runner, "conclusion": conclusion, **times}


class Gitea:
    """In the place of Gitea: the runners that it lists, and the job of each run."""

    def __init__(self, *, runners: list[dict[str, str]], jobs: list[dict[str, Any]], status: str = "completed") -> None:
        self.runners, self.jobs, self.status = runners, jobs, status

    def get(self, path: str) -> dict[str, Any]:
        if path.endswith("/runners"):
            return {"runners": self.runners}
        if path.endswith("/jobs"):
            return {"jobs": [self.jobs[int(path.split("/")[-2])]]}
        mine = [{"id": number, "head_sha": f"c{number}", "status": self.status} for number in range(len(self.jobs))]
        return {"workflow_runs": [{"id": 99, "head_sha": "other", "status": "queued"}, *mine]}


class Cluster:
    """In the place of the cluster: pods by name."""

    def __init__(self, *pods: str) -> None:
        self.names, self.asked = pods, [""]

    def kubectl(self, *words: str) -> None:
        self.asked.append(" ".join(words))

    def wait_pods(self, *_: Any, **__: Any) -> None: ...

    def pods(self, *_: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": name}} for name in self.names]

    def explain(self, *_: str) -> str:
        return "runner-a: CrashLoopBackOff"


def runners(tmp_path: Path, cluster: Cluster, server: Gitea) -> Runners:
    commits = iter(["c0", "c1", "c2", "c3"])
    repository = SimpleNamespace(path="trainer/crowd", push=lambda *_, branch: next(commits))
    return Runners(cluster, server, repository, tmp_path)  # type: ignore[arg-type]


def test_scaling_waits_until_gitea_lists_each_pod(tmp_path: Path) -> None:
    listed = [{"name": "a", "status": "idle"}, {"name": "b", "status": "online"}, {"name": "gone", "status": "offline"}]
    cluster = Cluster("b", "a")
    assert runners(tmp_path, cluster, Gitea(runners=listed, jobs=[])).scale(2, timeout=1) == ["a", "b"]
    assert cluster.asked[-1] == "scale deployment/runner --replicas=2 -n release"


def test_a_pod_that_does_not_register_is_said_with_its_cause(tmp_path: Path) -> None:
    listed = [{"name": "a", "status": "idle"}, {"name": "b", "status": "offline"}]
    with pytest.raises(WaitTimeout) as raised:
        runners(tmp_path, Cluster("a", "b"), Gitea(runners=listed, jobs=[])).scale(2, timeout=0.4)
    assert "online: a" in str(raised.value) and "CrashLoopBackOff" in str(raised.value)


def test_a_build_is_the_jobs_of_its_own_commits(tmp_path: Path) -> None:
    jobs = [job(number, f"runner-{number % 2}", 2 * (number // 2)) for number in range(4)]
    found = runners(tmp_path, Cluster(), Gitea(runners=[], jobs=jobs)).build(timeout=1)
    assert [(one.commit, one.runner) for one in found] == [
        ("c0", "runner-0"), ("c1", "runner-1"), ("c2", "runner-0"), ("c3", "runner-1"),
    ]  # fmt: skip
    row = runner_pods.row(["runner-0", "runner-1"], found)
    assert row == {"pods": 2, "jobs": 4, "runners that took one": 2, "at once": 2, "s": 4.0}


def test_a_build_that_hangs_names_the_states(tmp_path: Path) -> None:
    jobs = [job(number, "a", 0) for number in range(3)]
    with pytest.raises(WaitTimeout, match="c0: queued, c1: queued, c2: queued, c3: no run"):
        runners(tmp_path, Cluster(), Gitea(runners=[], jobs=jobs, status="queued")).build(timeout=0.4)


def test_a_failed_job_is_no_build() -> None:
    with pytest.raises(CheckFailed, match="2 on b: failure"):
        runner_pods.row(["a"], [Job("1", "a", "success", 0, 2), Job("2", "b", "failure", 0, 2)])


@pytest.mark.parametrize(("starts", "most"), [([0, 2, 4], 1), ([0, 1, 2], 2), ([0, 0, 0], 3), ([], 0)])
def test_jobs_at_the_same_time_are_counted(starts: list[int], most: int) -> None:
    assert runner_pods.at_once([Job(str(start), "a", "success", start, start + 2) for start in starts]) == most


def test_the_workflow_and_the_pods_name_the_same_label_and_no_token() -> None:
    workflow = yaml.safe_load(runner_pods.workflow())
    test = workflow["jobs"]["test"]
    assert test["runs-on"] == runner_pods.LABEL and "${{ github.sha }}" in test["steps"][0]["run"]
    (deployment,) = manifests.objects(manifests.render("gitea-runner.yaml", image_runner="x:1"))
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert "</etc/runner/token" in container["args"][0] and "--token" not in container["args"][0]
    assert pod["volumes"][0]["secret"]["secretName"] == "runner"
