"""A Host runs commands and copies files.

It distinguishes three outcomes: the machine cannot be reached (`TransportError`), the command fails (`CommandFailed`),
or the answer is negative (`check=False`, then look at `Result.rc`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stackbook.core.errors import CommandFailed, TransportError, WaitTimeout
from stackbook.core.locks import born
from stackbook.core.redact import MASK, Secret
from stackbook.core.results import Result

Observer = Callable[[Result], None]
Text = str | Secret
"""Standard input for a command; a Secret does not show in tracebacks."""
_PROC = Path("/proc")


class Host(Protocol):
    """A machine."""

    name: str

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: Text | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> Result:
        """Run `argv` and return what it did.

        Args:
            argv: the command, never parsed by a shell. Put no secret here or into `env`, because `ps` shows both.
            check: raise CommandFailed if the exit status is not 0.
            stdin: text for its standard input; use this for secrets.
            timeout: deadline in seconds, after which the command is stopped.
            env: variables to add to the environment.
            secret: its output holds a secret: the Result, records and errors show `***`; `Result.reveal` returns the
                output.

        Raises:
            TypeError: an argument is a Secret.
            TransportError: the machine could not be reached.
            CommandFailed: the command failed and `check` is set.
            WaitTimeout: the deadline passed.
        """

    def read(self, path: str) -> str:
        """The text of a file; raises CommandFailed if it cannot be read."""

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        """Write `text` to the file, in one step, with these permissions."""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """Copy a local file to the machine."""


@dataclass
class RunningHost:
    """What all backends share: timing, records, and files through `run`."""

    name: str = "local"
    observers: list[Observer] = field(default_factory=list)

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        raise AssertionError("each backend defines how to run a command")

    def _environment(self, env: Mapping[str, str]) -> dict[str, str] | None:
        """The environment of the process on this host; None to inherit."""
        return None

    def _transport_failed(self, result: Result) -> str:
        """Why the transport failed; empty if the command itself ran."""
        return ""

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: Text | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> Result:
        """See `Host.run`."""
        for word in (*argv, *(env or {}).values()):
            if not isinstance(word, str):
                raise TypeError(
                    f"an argument of the command is a {type(word).__name__}, not a str: pass a secret by standard input"
                )
        result, late = self._execute(argv, stdin=stdin, timeout=timeout, env=env or {})
        failed = self._transport_failed(result)
        if secret:  # from here on, no error, observer or variable in a traceback contains the output
            result, failed = result.hide(), self._why() if failed else ""
        if late:
            tail = (result.stderr or result.stdout).strip().splitlines()[-3:]
            raise WaitTimeout(f"{result.command} on {self.name}", timeout, last=" | ".join(tail))
        for observe in self.observers:
            observe(result)
        if failed:
            raise TransportError(f"{self.name} could not be reached: {failed}")
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def _why(self) -> str:
        """Ask why the transport failed with another command, because the output of the first one may hold a secret."""
        with contextlib.suppress(WaitTimeout):
            return (
                self._transport_failed(self._execute(["true"], stdin=None, timeout=30, env={})[0])
                or "the connection was lost"
            )
        return "it does not answer"

    def _execute(
        self, argv: Sequence[str], *, stdin: Text | None, timeout: float, env: Mapping[str, str]
    ) -> tuple[Result, bool]:
        """What the command did, and whether it was stopped at the deadline."""
        full = self._argv(argv, env, stdin is not None)
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=self._environment(env),
            )
        except OSError as error:
            raise TransportError(f"{full[0]} could not be started: {error.strerror}") from error
        try:
            out, err = process.communicate(None if stdin is None else _plain(stdin).encode(), timeout=timeout)
            late = False
        except subprocess.TimeoutExpired:
            out, err = _end(process)
            late = True
        except BaseException:
            _end(process)
            raise
        return Result(
            tuple(argv),
            process.returncode,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
            time.monotonic() - start,
            self.name,
            given=MASK if isinstance(stdin, Secret) else stdin or "",
        ), late

    def read(self, path: str) -> str:
        """See `Host.read`."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        """See `Host.write`."""
        # A temporary name and `mv`: a reader sees the old file or the new one, never half of it. A folder that is created for
        # a private file is private as well, and with `set -C` a file that somebody creates meanwhile is not overwritten.
        script = (
            'set -e; case "$2" in *00) umask 077 ;; *) umask 022 ;; esac; mkdir -p "$(dirname "$1")"; umask 077; '
            'rm -f "$1.new"; set -C; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        )
        self.run(["sh", "-c", script, "write", path, f"{mode:o}"], stdin=text)

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        raise AssertionError("each backend defines how to copy a file")


def _plain(text: Text) -> str:
    return text.reveal() if isinstance(text, Secret) else text


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Stop a child process and everything it started; returns its output."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            continue
    # The process has ended, but another process still holds its output open: a unit of systemd-run --pipe, for example.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
    return b"", b""


@dataclass
class LocalHost(RunningHost):
    """This machine."""

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        return list(argv)

    def _environment(self, env: Mapping[str, str]) -> dict[str, str] | None:
        return {**os.environ, **env} if env else None

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        self.run(["install", "-D", "-m", f"{mode or local.stat().st_mode & 0o777:o}", str(local), remote])


@dataclass
class ContainerHost(RunningHost):
    """A machine in a podman container, entered through its namespaces.

    `podman exec` takes a quarter of a second for each command. nsenter(1) into the namespaces of the machine's first
    process takes a few milliseconds, and a chapter runs hundreds of commands.

    Args:
        container: name of the container.
        podman: podman with its global flags.
        shared: folders of this host that the machine has mounted, as (here, there); files in them need no copy.
    """

    container: str = ""
    podman: tuple[str, ...] = ("podman",)
    shared: tuple[tuple[Path, str], ...] = ()
    _first: tuple[int, str] = (0, "")

    def running_as(self, pid: int) -> ContainerHost:
        """This host, with its first process known already: podman has listed it, and it belongs to the container."""
        self._first = (pid, born(pid))
        return self

    def _pid(self) -> int:
        """The machine's first process; looks it up again if the known one has ended.

        Raises:
            TransportError: the machine is not running.
        """
        pid, since = self._first
        if pid and born(pid) == since:
            return pid
        ask = [*self.podman, "inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}", self.container]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
        number, _, container = answer.stdout.strip().partition(" ")
        if answer.returncode or not number.isdigit() or number == "0":
            said = answer.stderr.strip().splitlines()
            raise TransportError(f"{self.name} could not be reached: {said[-1] if said else 'it is not running'}")
        pid = int(number)
        if not belongs(pid, container):
            raise TransportError(
                f"{self.name} could not be reached: podman reports it as running, but its first process is gone",
                fix="start it again with `stackbook run`",
            )
        self._first = (pid, born(pid))
        return pid

    def alive(self) -> bool:
        """Whether the known first process still runs; does not ask podman."""
        return bool(self._first[0]) and born(self._first[0]) == self._first[1]

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "-i", f"PATH={path}", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "container=podman"]
        values = [f"{key}={value}" for key, value in env.items()]
        enter = ["nsenter", "-t", str(self._pid()), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return [*enter, *clean, *values, *argv]

    def _transport_failed(self, result: Result) -> str:
        if result.rc and result.stderr.startswith("nsenter: "):
            return result.stderr.strip().splitlines()[-1]
        return ""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        permissions = f"{mode or local.stat().st_mode & 0o777:o}"
        for here, there in self.shared:
            if local.resolve().is_relative_to(here.resolve()):
                inside = f"{there}/{local.resolve().relative_to(here.resolve())}"
                self.run(["install", "-D", "-m", permissions, inside, remote], timeout=300)
                return
        self.run(["mkdir", "-p", str(Path(remote).parent)])
        LocalHost().run([*self.podman, "cp", str(local), f"{self.container}:{remote}"], timeout=600)
        self.run(["chmod", permissions, remote])


def belongs(pid: int, container: str) -> bool:
    """Whether a process lives and belongs to this container: podman puts the container's id into its control groups.

    podman reports what it last saved. After a host is restored from a snapshot, or loses power with /run on a disk,
    podman reports a container as running although its processes are gone; their numbers may belong to other processes
    by then.
    """
    try:
        return bool(container) and container in (_PROC / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return False
