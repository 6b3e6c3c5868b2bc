"""Repositories and builds of a running Drone: activation, trust, secrets, cron jobs, and the log of each step.

The API: https://docs.drone.io/api/overview/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lessons.delivery import guide_files
from stackbook.lessons.delivery.drone import Drone

_ENDED = ("success", "failure", "error", "killed", "skipped", "declined")
_CLONE = [
    "git init --quiet .",
    "git fetch --quiet --depth=1 $DRONE_REMOTE_URL $DRONE_COMMIT_SHA",
    "git checkout --quiet FETCH_HEAD",
]
_LOGIN = ['test -n "$DOCKER_PASS"', 'echo "log in as $DOCKER_USER with $DOCKER_PASS"']


@dataclass(frozen=True)
class Build:
    """A build.

    Attributes:
        number: its number in the repository.
        status: success, failure, error, killed, skipped, pending or running.
        event: what started it: push, cron, or custom.
        commit: the commit.
        problem: why it did not run, in Drone's words; empty if it ran.
        steps: step → its status, in their order.
        cron: the cron job that started it.
    """

    number: int
    status: str
    event: str
    commit: str
    problem: str
    steps: Mapping[str, str] = field(default_factory=dict)
    cron: str = ""


def pipeline(cache: Path) -> str:
    """Today's pipeline as a host can run it that pulls no images.

    Images are used as they are there (`pull: never`). Drone's own clone step always pulls its image, so the first step clones; it
    needs the network of this host's Gitea. The lab's small program stands for @quasar/cli. The last step shows that it could log in,
    because there is no registry.

    Args:
        cache: the folder of the host for the volume `cache`.
    """
    made = yaml.safe_load(guide_files.today("drone-pipeline").replace("npx quasar build", "npx demo build"))
    steps = [step for step in made["steps"] if step["name"] != "docker"]
    login = {"DOCKER_USER": {"from_secret": "docker_user"}, "DOCKER_PASS": {"from_secret": "docker_pass"}}
    first = {"name": "clone", "image": "drone/git", "network_mode": "host", "commands": _CLONE}
    last = {"name": "docker", "image": "node:24", "environment": login, "commands": _LOGIN}
    made["clone"] = {"disable": True}
    made["steps"] = [{**step, "pull": "never"} for step in (first, *steps, last)]
    made["volumes"] = [{"name": "cache", "host": {"path": str(cache)}}]
    return yaml.safe_dump(made, sort_keys=False)


@dataclass(frozen=True)
class Project:
    """A repository as Drone has it.

    Attributes:
        drone: a running Drone.
        path: owner/name.
    """

    drone: Drone
    path: str

    @classmethod
    def activate(cls, drone: Drone, path: str) -> Project:
        """Activate a repository: Drone adds its webhook to it in Gitea."""
        drone.ask("POST", "/user/repos")  # it learns of new repositories when it is told to
        drone.ask("POST", f"/repos/{path}")
        return cls(drone, path)

    def trust(self, trusted: bool = True) -> None:
        """Mark it as Trusted, as an administrator does in its settings."""
        self.drone.ask("PATCH", f"/repos/{self.path}", {"trusted": trusted})

    def secret(self, name: str, value: Secret) -> None:
        """Store a secret."""
        self.drone.ask("POST", f"/repos/{self.path}/secrets", {"name": name, "data": value.reveal()})

    def secrets(self) -> list[dict[str, Any]]:
        """The secrets, as Drone lists them."""
        found: list[dict[str, Any]] = self.drone.ask("GET", f"/repos/{self.path}/secrets")
        return found

    def by_cron(self, name: str, expression: str, *, branch: str = "main", timeout: float = 30.0) -> int:
        """Add a cron job, wait for the build that it starts, and delete the job; returns the build's number.

        Args:
            name: the job's name.
            expression: when it is due; the first of its six fields is the seconds.
            branch: the branch of which the last commit is built.
            timeout: deadline in seconds.

        Raises:
            CheckFailed: Drone refuses the expression.
            WaitTimeout: it started no build in time.
        """
        jobs = f"/repos/{self.path}/cron"
        self.drone.ask("POST", jobs, {"name": name, "expr": expression, "branch": branch})
        try:
            return until(lambda: self._first("", name), what=f"the cron job {name} to start a build", timeout=timeout, every=0.2,
                         cause=self.drone.said)  # fmt: skip
        finally:
            self.drone.ask("DELETE", f"{jobs}/{name}")

    def start(self) -> int:
        """Start a build of the last commit, as the button of the page does; returns its number."""
        return int(self.drone.ask("POST", f"/repos/{self.path}/builds")["number"])

    def cancel(self, number: int) -> None:
        """Cancel a build."""
        self.drone.ask("DELETE", f"/repos/{self.path}/builds/{number}")

    def wait(self, *, number: int = 0, commit: str = "", timeout: float = 90.0) -> Build:
        """Wait for the end of a build: of the one with this number, or of the first of this commit.

        Raises:
            WaitTimeout: there is none, or it has not ended in time; the error has what was seen last.
            CheckFailed: Drone has exited, or does not answer.
        """
        what = f"build {number}" if number else f"a build of {commit[:8]}"
        state = "there is no such build"

        def ended() -> Build | None:
            nonlocal state, number
            if self.drone.process.poll() is not None:
                raise CheckFailed(f"Drone exited with status {self.drone.process.returncode}: {self.drone.said()}")
            number = number or self._first(commit)
            if not number:
                return None
            build = self.build(number)
            running = [name for name, status in build.steps.items() if status == "running"]
            state = f"it is {build.status}" + "".join(f", in its step {name}" for name in running)
            return build if build.status in _ENDED else None

        return until(ended, what=f"{what} to end", timeout=timeout, every=0.2, last=lambda: state)

    def _first(self, commit: str, cron: str = "") -> int:
        listed = self.drone.ask("GET", f"/repos/{self.path}/builds") or []
        mine = [b for b in listed if (b["after"] == commit if commit else b.get("cron") == cron)]
        return min((int(b["number"]) for b in mine), default=0)

    def build(self, number: int) -> Build:
        """A build as it is now."""
        raw = self.drone.ask("GET", f"/repos/{self.path}/builds/{number}")
        stages = raw.get("stages") or []
        steps = [step for stage in stages for step in stage.get("steps") or []]
        said = [part.get("error", "") for part in (raw, *stages, *steps)]
        problem = next((" ".join(text.split()) for text in said if text), "")
        return Build(number, raw["status"], raw["event"], raw["after"], problem, {s["name"]: s["status"] for s in steps},
                     raw.get("cron", ""))  # fmt: skip

    def log(self, build: Build, step: str) -> list[str]:
        """The lines that a step printed; none of one that was skipped.

        Raises:
            CheckFailed: the build has no such step, or Drone has no log of it.
        """
        if step not in build.steps:
            raise CheckFailed(f"build {build.number} has no step {step}, but {', '.join(build.steps) or 'none'}")
        if build.steps[step] == "skipped":
            return []
        place = list(build.steps).index(step) + 1
        lines = self.drone.ask("GET", f"/repos/{self.path}/builds/{build.number}/logs/1/{place}")
        return [str(line["out"]).rstrip("\n") for line in lines or []]


def demand_success(builds: Sequence[Build]) -> None:
    """Refuse builds that did not succeed.

    Raises:
        CheckFailed: one did not; one line says which, and why.
    """
    for build in builds:
        if build.status != "success":
            wrong = [name for name, status in build.steps.items() if status not in ("success", "skipped")]
            why = build.problem or f"its step {', '.join(wrong)} failed"
            raise CheckFailed(f"build {build.number} ended with {build.status}: {why}")
