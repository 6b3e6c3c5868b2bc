"""A Host runs a command and moves a file.

Three things are told apart: a machine that cannot be reached (`TransportError`), a command that fails
(`CommandFailed`), and a negative answer (`check=False` and a look at `Result.rc`).
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
from stackbook.core.redact import Secret
from stackbook.core.results import Result

Observer = Callable[[Result], None]
Text = str | Secret
"""What goes to a machine by standard input; as a Secret it shows itself in no traceback on its way."""
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
            argv: the command, never parsed by a shell. No secret goes there, nor into `env`, as `ps` shows both.
            check: raise CommandFailed when the exit status is not 0.
            stdin: text for its standard input: the way for a secret.
            timeout: deadline in seconds; the command is ended when it passes.
            env: variables to add to the environment.
            secret: its output holds a secret: the Result, records and errors have `***`, and `Result.reveal` the output.

        Raises:
            TypeError: a Secret is among the words.
            TransportError: the machine could not be reached.
            CommandFailed: the command failed and `check` is set.
            WaitTimeout: the deadline passed.
        """

    def read(self, path: str) -> str:
        """The text of a file; CommandFailed when it cannot be read."""

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        """Put `text` into the file, in one step, with these permissions."""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """Copy a local file to the machine."""


@dataclass
class RunningHost:
    """What all backends share: timing, records, and files by way of `run`."""

    name: str = "local"
    observers: list[Observer] = field(default_factory=list)

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        raise AssertionError("each backend says how a command reaches it")

    def _environment(self, env: Mapping[str, str]) -> dict[str, str] | None:
        """The environment of the process on this host; None for this one's own."""
        return None

    def _transport_failed(self, result: Result) -> str:
        """Why the transport failed, or an empty string when the command itself answered."""
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
                raise TypeError(f"a word of a command is a {type(word).__name__}: a secret goes by its standard input")
        result, late = self._execute(argv, stdin=stdin, timeout=timeout, env=env or {})
        failed = self._transport_failed(result)
        if secret:  # from here on nothing has its output: no error, no observer, no variable that a traceback shows
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
        """What is wrong with the transport, by another command: what the first one printed may hold its secret."""
        with contextlib.suppress(WaitTimeout):
            return self._transport_failed(self._execute(["true"], stdin=None, timeout=30, env={})[0]) or "it was lost"
        return "it does not answer"

    def _execute(
        self, argv: Sequence[str], *, stdin: Text | None, timeout: float, env: Mapping[str, str]
    ) -> tuple[Result, bool]:
        """What the command did, and whether the deadline ended it."""
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
        ), late

    def read(self, path: str) -> str:
        """See `Host.read`."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        """See `Host.write`."""
        # A temporary name and `mv`: a reader sees the old file or the new one, never half of it. Nobody but the owner gets
        # into a folder that is made for a file of his own, and `set -C` writes no file that somebody put there meanwhile.
        script = (
            'set -e; case "$2" in *00) umask 077 ;; *) umask 022 ;; esac; mkdir -p "$(dirname "$1")"; umask 077; '
            'rm -f "$1.new"; set -C; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        )
        self.run(["sh", "-c", script, "write", path, f"{mode:o}"], stdin=text)

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        raise AssertionError("each backend says how a file reaches it")


def _plain(text: Text) -> str:
    return text.reveal() if isinstance(text, Secret) else text


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a child and everything it started; returns what it had printed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            continue
    # Dead, and somebody whom it had given its output to still holds that: a unit of systemd-run --pipe, for example.
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
    """A machine that is a container of podman's, entered by its namespaces.

    `podman exec` takes a quarter of a second for each command; entering the namespaces of the machine's first process with
    nsenter(1) takes a few milliseconds, and a chapter runs hundreds of commands.

    Args:
        container: name of the container.
        podman: podman with its global flags.
        shared: folders of this host that the machine sees, as (here, there); files below them are not copied over the wire.
    """

    container: str = ""
    podman: tuple[str, ...] = ("podman",)
    shared: tuple[tuple[Path, str], ...] = ()
    _first: tuple[int, str] = (0, "")

    def _pid(self) -> int:
        """The machine's first process, looked up again when the one known has ended.

        Raises:
            TransportError: the machine does not run.
        """
        pid, since = self._first
        if pid and born(pid) == since:
            return pid
        ask = [*self.podman, "inspect", "--type", "container", "--format", "{{.State.Pid}} {{.Id}}", self.container]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
        number, _, container = answer.stdout.strip().partition(" ")
        if answer.returncode or not number.isdigit() or number == "0":
            said = answer.stderr.strip().splitlines()
            raise TransportError(f"{self.name} could not be reached: {said[-1] if said else 'it does not run'}")
        pid = int(number)
        if not belongs(pid, container):
            raise TransportError(
                f"{self.name} could not be reached: podman believes that it runs, but its first process has gone",
                fix="stackbook run, which starts it again",
            )
        self._first = (pid, born(pid))
        return pid

    def alive(self) -> bool:
        """Whether the first process that was known still runs; asks nobody."""
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
    """Whether a process lives and is of this container, going by its control groups, which podman names by the full id.

    What podman says is what it last wrote down. On a host that was put back from a snapshot, or lost its power with /run on
    a disk, it says "running" of a container whose processes have gone; the number may by then be any other process of this host.
    """
    try:
        return bool(container) and container in (_PROC / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return False
