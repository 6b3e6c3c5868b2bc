"""The guide's .drone.yml: why it is not YAML, what the corrected file contains, and a small runner for steps without containers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackbook.core import observed
from stackbook.core.errors import InputError

CACHE_PLUGIN = "drillster/drone-volume-cache"


def problem(text: str) -> str:
    """Why a text is not YAML, and where; empty if it is.

    >>> problem("repo: ***")
    "line 1: while scanning an alias: expected alphabetic or numeric character, but found '*'"
    """
    try:
        yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return f"line {line}: {error.context}: {error.problem}"
    # ValueError and TypeError: an invalid date, or a list as a key.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return " ".join(str(error).split())[:200]
    return ""


@dataclass(frozen=True)
class Step:
    """A step of a pipeline."""

    name: str
    image: str
    commands: tuple[str, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline for Drone's docker runner."""

    kind: str
    type: str
    steps: tuple[Step, ...]
    host_volumes: Mapping[str, str]

    @property
    def secrets(self) -> list[str]:
        """The names of the secrets that its steps use."""
        values = [v for step in self.steps for v in step.settings.values() if isinstance(v, Mapping)]
        return [v["from_secret"] for v in values if "from_secret" in v]

    @property
    def unpinned(self) -> list[str]:
        """The images without a tag in its command steps: each build can get a different image."""
        return sorted({step.image for step in self.steps if step.commands and ":" not in step.image})


def parse(text: str) -> Pipeline:
    """Read a pipeline from a .drone.yml with one document.

    Raises:
        InputError: it is not YAML, or not a pipeline with steps.
    """
    if wrong := problem(text):
        raise InputError(f".drone.yml is not valid YAML: {wrong}", fix="quote values that start with * or &")
    raw = yaml.safe_load(text)
    if not isinstance(raw, dict) or raw.get("kind") != "pipeline" or not raw.get("steps"):
        raise InputError(".drone.yml has no pipeline with steps", fix="write kind: pipeline and a list of steps")
    try:
        steps = tuple(
            Step(
                s["name"],
                s.get("image", ""),
                tuple(s.get("commands", ())),
                s.get("settings", {}),
                s.get("environment", {}),
            )
            for s in raw["steps"]
        )
        volumes = {v["name"]: v["host"]["path"] for v in raw.get("volumes", ()) if "host" in v}
    except (LookupError, TypeError, AttributeError) as error:
        said = f"a step or a volume of .drone.yml has a wrong form: {type(error).__name__}: {error}"
        raise InputError(said, fix="give each step a name, an image and a list of commands") from error
    # Without a type, Drone uses docker (docs.drone.io/pipeline/docker); it is better to write it.
    return Pipeline(raw["kind"], raw.get("type", ""), steps, volumes)


@dataclass(frozen=True)
class Done:
    """The result of a step: `outcome` is success, failure or "not run"; `said` has its output lines."""

    step: str
    outcome: str
    said: tuple[str, ...]


def run(
    pipeline: Pipeline, workspace: Path, *, repository: str, cache: Path, env: Mapping[str, str],
    clean: Callable[[str], str] = str,
) -> list[Done]:  # fmt: skip
    """Run a pipeline's steps in a folder, one after the other, until one fails.

    This is the lab's own runner, not Drone's: commands run on this host, not in their images. The only plugin that it knows is
    the volume cache, which works like the plugin's cacher.sh (github.com/Drillster/drone-volume-cache): a mount goes to
    /cache/<owner>/<repo>/<mount>. It does not run steps with other plugins.

    Args:
        pipeline: the pipeline.
        workspace: the cloned repository.
        repository: owner/name.
        cache: the folder for the pipeline's volume `cache`.
        env: the environment of the commands.
        clean: removes from a line what differs between runs.
    """
    done: list[Done] = []
    for step in pipeline.steps:
        if step.commands:
            ran = _commands(step, workspace, env, clean)
        elif step.image.partition(":")[0] == CACHE_PLUGIN:
            ran = Done(step.name, "success", tuple(_cache(step, workspace, cache / repository)))
        else:
            ran = Done(step.name, "not run", (f"needs the image {step.image}",))
        done.append(ran)
        if ran.outcome == "failure":
            break
    return done


def _commands(step: Step, workspace: Path, env: Mapping[str, str], clean: Callable[[str], str]) -> Done:
    said: list[str] = []
    script = "set -e\n" + "\n".join(step.commands)
    ran = subprocess.run(
        ["sh", "-c", script], cwd=workspace, env={**env, **step.environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip
    observed.tell(["sh", "-c", script], rc=ran.returncode, folder=workspace)
    said += [clean(line) for line in ran.stdout.splitlines() if line.strip()]
    return Done(step.name, "failure" if ran.returncode else "success", tuple(said))


def _cache(step: Step, workspace: Path, place: Path) -> list[str]:
    lines = []
    for mount in step.settings.get("mount", ()):
        kept, used = place / mount, workspace / mount
        source, target = (kept, used) if step.settings.get("restore") else (used, kept)
        if not source.is_dir():
            lines.append(f"No cache for {mount}")
            continue
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, symlinks=True)
        lines.append(f"{'Restoring' if source is kept else 'Rebuilding'} cache for {mount}")
    return lines
