"""A Host runs a command and moves a file.

Three things are told apart: a machine that cannot be reached (`TransportError`), a command that fails
(`CommandFailed`), and a negative answer (`check=False` and a look at `Result.rc`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from stackbook.errors import CommandFailed, TransportError, WaitTimeout
from stackbook.redact import MASK, Secret, redact


@dataclass(frozen=True)
class Result:
    """What a command did. `seconds` is wall time; output is text with undecodable bytes replaced."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    seconds: float
    host: str = "local"

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.rc == 0

    @property
    def command(self) -> str:
        """The command as it could be pasted into a shell, secrets masked."""
        return redact(" ".join(MASK if isinstance(a, Secret) else shlex.quote(a) for a in self.argv))

    @property
    def lines(self) -> list[str]:
        """The lines of stdout that are not blank."""
        return [line for line in self.stdout.splitlines() if line.strip()]

    def masked(self) -> Result:
        """The same without what the command said."""
        return replace(self, stdout=MASK, stderr=MASK)


Observer = Callable[[Result], None]
_PROC = Path("/proc")


class Host(Protocol):
    """A machine."""

    name: str

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> Result:
        """Run `argv` and return what it did.

        Args:
            argv: the command, never parsed by a shell.
            check: raise CommandFailed when the exit status is not 0.
            stdin: text for its standard input.
            timeout: deadline in seconds; the command is ended when it passes.
            env: variables to add to the environment.
            secret: its output holds a secret, and is kept out of every record.

        Raises:
            TransportError: the machine could not be reached.
            CommandFailed: the command failed and `check` is set.
            WaitTimeout: the deadline passed.
        """

    def read(self, path: str) -> str:
        """The text of a file; CommandFailed when it cannot be read."""

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put `text` into the file, in one step, with these permissions."""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """Copy a local file to the machine."""


@dataclass
class _Base:
    """What all backends share: timing, records, and files by way of `run`."""

    name: str = "local"
    observers: list[Observer] = field(default_factory=list)

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        raise AssertionError("each backend says how a command reaches it")

    def _transport_failed(self, result: Result) -> str:
        """Why the transport failed, or an empty string when the command itself answered."""
        return ""

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> Result:
        """See `Host.run`."""
        result = self._execute(argv, stdin=stdin, timeout=timeout, env=env or {})
        shown = result.masked() if secret else result
        for observe in self.observers:
            observe(shown)
        if reason := self._transport_failed(result):
            raise TransportError(f"{self.name} could not be reached: {reason}")
        if check and not result.ok:
            raise CommandFailed(shown)
        return result

    def _execute(self, argv: Sequence[str], *, stdin: str | None, timeout: float, env: Mapping[str, str]) -> Result:
        full = [a.reveal() if isinstance(a, Secret) else a for a in self._argv(argv, env, stdin is not None)]
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise TransportError(f"{full[0]} could not be started: {error.strerror}") from error
        try:
            out, err = process.communicate(None if stdin is None else stdin.encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            out, err = _end(process)
            shown = Result(tuple(argv), -1, "", "", timeout, self.name)
            tail = redact((err or out).decode(errors="replace")).strip().splitlines()[-3:]
            raise WaitTimeout(f"{shown.command} on {self.name}", timeout, last=" | ".join(tail)) from None
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
        )

    def read(self, path: str) -> str:
        """See `Host.read`."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """See `Host.write`."""
        # A temporary name and `mv`: a reader sees the old file or the new one, never half of it.
        script = 'set -e; mkdir -p "$(dirname "$1")"; umask 077; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        self.run(["sh", "-c", script, "write", path, f"{mode:o}"], stdin=text)

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        raise AssertionError("each backend says how a file reaches it")


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a child and everything it started; returns what it had printed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            continue
    return b"", b""


@dataclass
class LocalHost(_Base):
    """This machine."""

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        return ["env", *(f"{k}={v}" for k, v in env.items()), *argv] if env else list(argv)

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        self.run(["install", "-D", "-m", f"{mode or local.stat().st_mode & 0o777:o}", str(local), remote])


@dataclass
class ContainerHost(_Base):
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
        pid, born = self._first
        if pid and _born(pid) == born:
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
        self._first = (pid, _born(pid))
        return pid

    def alive(self) -> bool:
        """Whether the first process that was known still runs; asks nobody."""
        return bool(self._first[0]) and _born(self._first[0]) == self._first[1]

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


def _born(pid: int) -> str:
    """When a process was started, in clock ticks since boot (proc(5), field 22); empty when there is none."""
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@dataclass
class SSHHost(_Base):
    """A machine reached by OpenSSH; `sudo` is used when the user is not root.

    Args:
        address: host name or IP address.
        user: login name.
        port: TCP port.
        key: path of a private key, or None for the agent's and the default ones.
        known_hosts: file of accepted host keys; a key that changed is refused.
    """

    address: str = ""
    user: str = "root"
    port: int = 22
    key: Path | None = None
    known_hosts: Path | None = None

    def _options(self) -> list[str]:
        control = Path(tempfile.gettempdir()) / f"stackbook-ssh-{os.getuid()}"
        control.mkdir(mode=0o700, exist_ok=True)
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        options += ["-o", "StrictHostKeyChecking=accept-new"]
        options += ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={control}/%C"]
        if self.known_hosts:
            options += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        return options + (["-i", str(self.key)] if self.key else [])

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        words = [*(["sudo", "-n"] if self.user != "root" else []), "env", *(f"{k}={v}" for k, v in env.items())]
        words += [a.reveal() if isinstance(a, Secret) else a for a in argv]
        remote = " ".join(shlex.quote(word) for word in words)
        return ["ssh", *self._options(), "-p", str(self.port), f"{self.user}@{self.address}", "--", remote]

    def _transport_failed(self, result: Result) -> str:
        # ssh(1): "exits with the exit status of the remote command or with 255 if an error occurred".
        return (result.stderr.strip().splitlines() or ["ssh failed"])[-1] if result.rc == 255 else ""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        staged = self.run(["mktemp", "-p", "/var/tmp"]).stdout.strip()
        self.run(["chown", self.user, staged])
        target = f"{self.user}@{self.address}:{staged}"
        copied = LocalHost().run(
            ["scp", "-q", *self._options(), "-P", str(self.port), str(local), target], check=False, timeout=1800
        )
        if not copied.ok:
            raise TransportError(f"{local.name} could not be copied to {self.name}: {copied.stderr.strip()[-300:]}")
        permissions = f"{mode or local.stat().st_mode & 0o777:o}"
        self.run(["sh", "-c", 'install -D -m "$2" "$1" "$3" && rm -f "$1"', "put", staged, permissions, remote])
