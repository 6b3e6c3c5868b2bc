"""The parts of a release on the lab: what must be there, the repository's files, the runner, and what users see meanwhile."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd

from stackbook.artifacts import go_toolchain
from stackbook.cluster import own_namespaces
from stackbook.core import paths, temp_dirs
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import beside
from stackbook.lessons.delivery import actions
from stackbook.lessons.delivery.release import access, registry
from stackbook.lessons.delivery.release.verdict import ITEMS
from stackbook.lessons.delivery.repository import Repository
from stackbook.mesh import istio
from stackbook.traffic.canary import Change

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lessons.delivery.gitea import Gitea

LABEL = "release"
HOST = "front.example.com"
WORKFLOW = ".gitea/workflows/release.yaml"
STEPS = ("clone", "test", "image", "canary", "decide", "promote", "roll-back")
_GAP = 0.05
_THIRD = 3


def impossible(lab: Lab) -> str:
    """Why nothing can be released here, with the fix; empty if it can.

    The machines pull from this host, so they must be the lab's own; and Istio must run. Bookinfo is not needed: a challenge may have
    broken it.
    """
    if lab.profile.target != "embedded":
        return f"machines of the target {lab.profile.target} may not reach this host, which has the registry"
    (mesh,) = (check for check in lab.checks_of("05-istio") if check.id == "istio")
    try:
        if lab.kubeconfig.exists():
            with lab.turn("whether there is a mesh", of=istio.ISTIOD):  # chapter 11 stops istiod for a while
                mesh.prove(lab)
        else:
            mesh.prove(lab)
    except StackbookError as error:
        return f"there is no mesh ({error}): stackbook run --to 05"
    return ""


def tree() -> dict[str, str]:
    """The files of the repository, by path."""
    root = Path(str(files("stackbook.lessons.delivery.release") / "front"))
    return {str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(root.rglob("*")) if path.is_file()}


def version(number: int) -> dict[str, str]:
    """The files of a version: 1 and 2 differ by their number; the third has a discount for each item but the last."""
    found = tree()
    program = found["main.go"].replace('version = "1"', f'version = "{number}"')
    if number == _THIRD:
        program = program.replace("return prices[item]", "return prices[item] - discounts[item]")
        program = program.replace("var prices", "var discounts = []int{0, 5, 10, 0}\n\nvar prices", 1)
    return {**found, "main.go": program}


def difference(old: int, new: int) -> list[str]:
    """The lines of the program that differ between two versions, as a diff without context."""
    before, after = (version(number)["main.go"].splitlines() for number in (old, new))
    return list(difflib.unified_diff(before, after, f"version {old}", f"version {new}", lineterm="", n=0))


@dataclass
class Release:
    """A repository whose pushes are released on the lab.

    Attributes:
        repository: in Gitea.
        runner: runs the workflow.
        registry: Gitea's registry, host:port.
        url: the ingress gateway.
        work: the folder from which versions are pushed.
    """

    repository: Repository
    runner: actions.Runner
    registry: str
    url: str
    work: Path

    def push(self, changes: dict[str, str], message: str, *, timeout: float = 240.0) -> actions.Run:
        """Push these files and wait for the end of their run; raises what `actions.wait` raises."""
        commit = self.repository.push(self.work, changes, message)
        return actions.wait(self.repository, commit, self.runner, timeout=timeout)


@contextlib.contextmanager
def prepared(lab: Lab, server: Gitea) -> Iterator[Release]:
    """A registry, a namespace with an account, a repository with their secrets, and a runner; all are gone afterwards.

    Raises:
        InputError: the namespace is somebody else's; nothing is changed.
        StackbookError: a part cannot be made.
    """
    with contextlib.ExitStack() as scope:
        # Without istiod, which chapter 11 stops for a while, the API server refuses the pipeline's objects.
        scope.enter_context(lab.turn("a release", of=istio.ISTIOD))
        scope.enter_context(own_namespaces.temporary(lab.kube, access.NAMESPACE))
        address = scope.enter_context(registry.reachable(lab, server))
        repository = Repository.create(server, registry.REPOSITORY)
        actions.secret(repository, "CLUSTER_ACCESS", access.granted(lab.kube))
        actions.secret(repository, "REGISTRY_TOKEN", registry.token(server))
        for name, value in (("REGISTRY", address), ("INGRESS", lab.ingress)):
            actions.variable(repository, name, value)
        folder = scope.enter_context(temp_dirs.folder("release"))
        environment = {**registry.podman(folder, address), **programs(lab, folder / "bin")}
        runner = scope.enter_context(
            actions.running(server, lab.artifacts.path("gitea-runner"), environment, label=LABEL)
        )
        yield Release(repository, runner, address, lab.ingress, folder / "work")


def programs(lab: Lab, first: Path) -> dict[str, str]:
    """The environment in which the workflow's commands are found: those of `first`, go, kubectl, git, and this library's Python."""
    go = go_toolchain.toolchain().environment
    own = {
        name: go[name]
        for name in ("GOROOT", "GOTOOLCHAIN", "GOWORK", "GOFLAGS", "GOCACHE", "GOMODCACHE", "CGO_ENABLED")
    }
    places = (first, Path(sys.executable).parent, Path(go["GOROOT"]) / "bin", Path(lab.kube.kubectl_path).parent)
    return {
        **own,
        "PATH": ":".join([*map(str, places), os.defpath, "/usr/sbin", "/sbin"]),
        "PYTHONPATH": str(paths.checkout() / "lib"),
        "LC_ALL": "C.UTF-8",
    }


@dataclass
class Watched:
    """Requests that users send through the ingress gateway while versions change.

    Attributes:
        rows: started (s since the first), version, track, item and status of each; version and track are empty if none was named.
        changes: when what happened.
    """

    began: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def note(self, label: str) -> None:
        """Note that something happens now."""
        self.changes.append(Change(time.monotonic(), label, 0.0))

    def frame(self) -> pd.DataFrame:
        """The rows as a table; `attrs["began"]` is the moment of the first, in seconds of the monotonic clock."""
        table = pd.DataFrame(self.rows, columns=["started", "version", "track", "item", "status"])
        table.attrs["began"] = self.began
        return table


@contextlib.contextmanager
def watched(url: str, *, gap: float = _GAP) -> Iterator[Watched]:
    """Send a request through the ingress gateway every `gap` seconds while the block runs, to one item after another."""
    seen = Watched()

    def work(ended: threading.Event) -> None:
        with httpx.Client(base_url=url, headers={"Host": HOST}, timeout=10, trust_env=False) as client:
            number = 0
            while not ended.wait(gap):
                started = time.monotonic() - seen.began
                try:
                    answer = client.get(f"/items/{number % ITEMS}")
                    status, headers = answer.status_code, dict(answer.headers)
                except httpx.TransportError:
                    status, headers = 0, {}
                seen.rows.append({
                    "started": started, "version": headers.get("x-version", ""), "track": headers.get("x-track", ""),
                    "item": number % ITEMS, "status": status,
                })  # fmt: skip
                number += 1

    with beside(work, name="watched", timeout=60):
        yield seen


def rows(runs: dict[str, actions.Run]) -> list[dict[str, str]]:
    """The table of runs: a row for each step of the workflow, a column for each push."""
    return [{"step": name, **{title: run.steps.get(name, "–") for title, run in runs.items()}} for name in STEPS]


def steps(runs: dict[str, actions.Run]) -> dict[str, list[str]]:
    """What each run did, with the end of its log: for the error of a claim."""
    return {
        title: [*(f"{step}: {what}" for step, what in run.steps.items()), *run.log.splitlines()[-6:]]
        for title, run in runs.items()
    }


def verdicts(run: actions.Run) -> list[str]:
    """What the step `decide` printed, without the times that Gitea puts before each line."""
    lines = [line.partition(" ")[2] for line in run.log.splitlines()]
    first = next((n for n, line in enumerate(lines) if line.startswith("version ")), len(lines))
    last = next((n for n, line in enumerate(lines) if line.startswith(("it stays", "it goes"))), first - 1)
    return lines[first : last + 1]
