"""Build web pages from the sources in a Go module: go.sum pins the sources, their lockfile pins every npm package."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.artifacts import gobuild, npm_packages
from stackbook.artifacts.catalogue import Group
from stackbook.artifacts.digests import key_of
from stackbook.artifacts.package_managers import MANAGERS, Manager, Output
from stackbook.artifacts.sources import Pages
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, CorruptArtifact, InputError
from stackbook.core.progress import Progress, Report
from stackbook.core.redact import redact

# With CI set, Gitea's build treats warnings as errors.
_WITHOUT = ("CI", "NODE_ENV", "NODE_OPTIONS", "ENABLE_SOURCEMAP")
_RETRY = "Will retry in"
_NETWORK = re.compile(
    r"fetch failed|ECONNREFUSED|ECONNRESET|ENOTFOUND|E(SOCKET)?TIMEDOUT|EAI_AGAIN|FETCH_\d|META_FETCH|CERT|socket hang up"
    r"|Request failed|network connection"
)
_ERROR = re.compile(r"\[ERROR\]|ERR_|\berror\b|\bError\b")
_LONGEST, _TIMES = 1800.0, 6.0


@dataclass(frozen=True)
class Tools:
    """The folders of Go, Node.js and the package manager."""

    go: Path
    node: Path
    manager: Path


def module_sum(source: Pages, group: Group) -> str:
    """The line of the module in the group's go.sum, `example.org/module v1.2.3 h1:…`, or of the module that replaces it.

    Raises:
        InputError: the group's go.mod or go.sum does not have it.
    """
    go_mod, module = (group.folder / "go.mod").read_text(), re.escape(source.module)
    replaced = re.search(rf"^\s*(?:replace )?{module} (?:v\S+ )?=> (\S+ v\S+)", go_mod, re.MULTILINE)
    required = re.search(rf"^\s*(?:require )?({module} v\S+)", go_mod, re.MULTILINE)
    found = replaced or required
    for line in (group.folder / "go.sum").read_text().splitlines():
        if found and line.startswith(f"{found[1]} h1:"):
            return line
    raise InputError(f"{group.folder} does not pin {source.module}", fix="go mod tidy there")


def recipe_key(source: Pages, group: Group, tools: Sequence[str]) -> str:
    """The key of pages: a hash of their sources, the commands, and the checksums of the tools."""
    manager = MANAGERS[source.manager]
    return key_of(
        "pages-1", module_sum(source, group), repr(source), list(tools), list(manager.install), dict(manager.settings)
    )


@dataclass
class _Watch:
    """Turns the output of the package manager and of the commands into progress and, after a failure, into its cause."""

    job: str
    report: Report
    output: Output
    estimate: float
    deadline: float
    start: float = field(default_factory=time.monotonic)
    phase: str = "download"
    lines: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        if kept := self.output.read(text):
            self.lines.append(kept)

    def tick(self, _seconds: float) -> None:
        seconds = time.monotonic() - self.start
        if seconds > self.deadline:
            last = self.lines[-1][:200] if self.lines else "no output"
            raise ArtifactError(f"{self.job} was not built within {self.deadline:.0f} s: {last}", fix="try again")
        there = self.output.done, self.output.total
        counted = (*there, "packages") if self.phase == "download" else (0, 0, "seconds")
        left = max(self.estimate - seconds, 0.0) or None
        self.report(Progress(self.job, self.phase, *counted, seconds=seconds, remaining=left))


def build(
    source: Pages, group: Group, tools: Tools, *, folder: Path, cache: Path, job: str, report: Report, log: Path,
    estimate: float, cancel: threading.Event, run: Spawn = spawn, background: bool = False,
    env: Mapping[str, str] | None = None, deadline: float = 0.0,
) -> Path:  # fmt: skip
    """Build the pages below `folder`; returns the folder with the finished pages.

    npm packages lie in the cache until the pages are finished, so an interrupted build continues from there.

    Args:
        source: the recipe.
        group: the group that pins the module.
        tools: Go, Node.js and the package manager.
        folder: a temporary folder on the cache's file system.
        cache: the root of the cache.
        job: the name of the job in progress.
        report: gets progress.
        log: the file for the output of the commands.
        estimate: how many seconds it will probably take.
        cancel: an event that ends the work when it is set.
        run: starts child processes.
        background: whether nobody waits for the pages; the commands then get a low priority.
        env: the user's environment; None for this process's.
        deadline: maximum number of seconds; 0 chooses one from the estimate.

    Raises:
        ArtifactUnavailable: the module or a package could not be downloaded.
        CorruptArtifact: a package is not what the lockfile says.
        ArtifactError: a command failed, or the deadline passed.
    """
    manager = MANAGERS[source.manager]
    packages = cache / "build" / manager.name / job
    base = dict(env if env is not None else os.environ)
    report(Progress(job, "download", message=source.module, remaining=estimate))
    work = _sources(source, group, tools, cache, base, folder)
    kept = {name: value for name, value in base.items() if name not in _WITHOUT}
    network = npm_packages.network_settings(tools.node, kept)
    manager.prepare(work, network.get("registry", npm_packages.REGISTRY))
    environ = environment(manager, tools, packages=packages, folder=folder, base=kept, network=network)
    watch = _Watch(job, report, manager.output(), estimate, deadline or max(_LONGEST, _TIMES * estimate))
    try:
        for argv in [manager.install, *(tuple(shlex.split(command)) for command in source.commands)]:
            gentle = ("nice", "-n", "19", "ionice", "-c", "3") if background and shutil.which("ionice") else ()
            status = run([*gentle, *argv], env=environ, cwd=work, log=log, on_line=watch.line, on_tick=watch.tick,
                         cancel=cancel)  # fmt: skip
            if status != 0:
                raise failure(job, shlex.join(argv), watch.lines, log)
            watch.phase, watch.lines = "build", []
    finally:
        end_leftovers(folder)
    made = work / source.output
    if not (made / source.proof).is_file():
        raise ArtifactError(
            f"the build of {job} left no {source.output}/{source.proof} (log: {log})", fix="see the log"
        )
    shutil.rmtree(packages, ignore_errors=True)  # the cache has the pages, so their packages need not be here as well
    return made


def environment(
    manager: Manager, tools: Tools, *, packages: Path, folder: Path, base: Mapping[str, str], network: Mapping[str, str]
) -> dict[str, str]:  # fmt: skip
    """The user's environment `base`, this Node.js and this package manager, and the cache for all that it keeps."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    program = programs / manager.name  # commands of the builds call it by this name
    program.write_text(
        f'#!/bin/sh\nexec "{tools.node / "bin/node"}" "{tools.manager / manager.script}" "$@"\n', "utf-8"
    )
    program.chmod(0o755)
    return {
        **base,
        **{manager.variables[name]: value for name, value in network.items() if name in manager.variables},
        **manager.settings,
        "PATH": f"{programs}:{tools.node / 'bin'}:{base.get('PATH', os.defpath)}",
        **{variable: str(packages / place) for variable, place in manager.folders.items()},
        "TMPDIR": str(folder),
        "NO_COLOR": "1",
    }


def failure(job: str, command: str, lines: Sequence[str], log: Path) -> ArtifactError:
    """The error for a failed command, from the lines of its output that say why."""
    errors = [line for line in lines if _ERROR.search(line) and not line.startswith("[WARN]")]
    tried = [line for line in lines if _RETRY in line][-1:]  # pnpm names the address only when it tries again
    cause = [*errors[:3], *tried] or list(lines[-3:]) or ["no message"]
    message = redact(f"{job}: {command} failed: {' / '.join(line[:300] for line in cause)} (log: {log})")
    everything = "\n".join(lines)
    if "INTEGRITY" in everything or "Integrity check failed" in everything:
        return CorruptArtifact(message, fix="a package is not what the lockfile says: check npm's registry")
    if _NETWORK.search(everything):
        return ArtifactUnavailable(message, fix="check npm's registry and the network; what was downloaded stays")
    if "ENOSPC" in everything or "no space left" in everything:
        return ArtifactError(message, fix="free some disk, or set STACKBOOK_CACHE to a larger one")
    return ArtifactError(message, fix="see the log")


def end_leftovers(folder: Path) -> list[int]:
    """End the processes that still work below `folder`: what a build has started must not outlive it. Returns their ids."""
    inside, found = f"{folder.resolve()}/", []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if f"{link.readlink()}/".startswith(inside) and (pid := int(link.parent.name)) != os.getpid():
                os.kill(pid, signal.SIGKILL)
                found.append(pid)
    return found


def _sources(
    source: Pages, group: Group, tools: Tools, cache: Path, env: Mapping[str, str], folder: Path
) -> Path:  # fmt: skip
    """A copy of the module's folder that can be written to."""
    environ = gobuild.environment(goroot=tools.go, cache=cache, base=env)
    found = gobuild.module_folder(source.module, group, environ) / source.path
    work = folder / "work"
    shutil.copytree(found, work, symlinks=True)
    for path in [work, *work.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return work
