"""Servers and clients in separate processes: programs that share no memory, which is the point of RPC."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbook.artifacts import go_toolchain
from stackbook.core import observed
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import pause
from stackbook.lessons.grpc import grpc
from stackbook.lessons.grpc.client import channel
from stackbook.lessons.grpc.server import serving

GO_PROGRAMS = ("./cmd/greeter-server", "./cmd/greeter-client", "./lessons/certs")


@functools.cache
def build() -> dict[str, Path]:
    """The Greeter's Go programs by name, compiled by the lab's toolchain."""
    paths = go_toolchain.toolchain().build(*GO_PROGRAMS)
    return {path.name: path for path in paths}


@dataclass
class Server:
    """A running server.

    Attributes:
        process: the process.
        address: host:port of gRPC.
        rest: host:port of its REST counterpart; empty if it has none.
        lines: its JSON output on stdout, line by line.
    """

    process: subprocess.Popen[str]
    address: str = ""
    rest: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port of gRPC."""
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it, like a power cut."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM); it drains first."""
        self.process.send_signal(signal.SIGTERM)

    def wait_for(self, deadline: float = 5.0, **values: Any) -> dict[str, Any]:
        """The first line with all these values.

        Raises:
            WaitTimeout: none arrived within `deadline` seconds.
        """
        end = time.monotonic() + deadline
        while True:
            for line in list(self.lines):
                if values.items() <= line.items():
                    return line
            if self.process.poll() is not None and time.monotonic() < end:
                end = min(end, time.monotonic() + 0.2)  # it has exited: only what is in the pipe can still arrive
            if time.monotonic() > end:
                last = json.dumps(self.lines[-1]) if self.lines else "nothing"
                raise WaitTimeout(f"a line with {values}", deadline, last=last)
            pause(0.01)

    def calls(self, count: int = 1, deadline: float = 5.0) -> list[dict[str, Any]]:
        """The lines of its calls so far; waits for at least `count`.

        Raises:
            WaitTimeout: there were fewer within `deadline` seconds.
        """
        end = time.monotonic() + deadline
        while len(found := [line for line in list(self.lines) if line["msg"] == "call"]) < count:
            if time.monotonic() > end:
                raise WaitTimeout(f"{count} calls in the server's log", deadline, last=f"{len(found)} calls")
            pause(0.01)
        return found

    def _read(self) -> None:
        assert self.process.stdout
        for text in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                self.lines.append(json.loads(text))


@contextlib.contextmanager
def _running(argv: list[str], env: Mapping[str, str]) -> Iterator[Server]:
    process = subprocess.Popen(
        go_toolchain.guarded(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    )
    observed.tell(argv, background=True)
    server = Server(process)
    reader = threading.Thread(target=server._read, daemon=True)
    reader.start()
    try:
        try:
            ready = server.wait_for(15.0, msg="listening")
        except WaitTimeout as error:
            process.kill()
            assert process.stderr
            raise CheckFailed(f"{argv[0]} did not listen: {process.stderr.read().strip()[-500:]}") from error
        server.address, server.rest = ready["address"], ready.get("rest", "")
        yield server
    finally:
        end(process, steps=((signal.SIGTERM, 8.0),))
        reader.join(5)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


@contextlib.contextmanager
def go_server(
    *flags: str, pod: str = "go", version: str = "v1", drain: float = 0.0, address: str = "127.0.0.1:0"
) -> Iterator[Server]:
    """Run the server in Go while the block runs.

    Args:
        flags: greeter-server's flags.
        pod: the name in its replies.
        version: the version in its replies.
        drain: how many seconds it still serves after SIGTERM.
        address: where it listens; port 0 takes a free one.
    """
    env = {"HOSTNAME": pod, "SERVICE_VERSION": version, "DRAIN_SECONDS": str(drain)}
    with _running([str(build()["greeter-server"]), "-address", address, *flags], env) as server:
        yield server


@contextlib.contextmanager
def python_server(*flags: str, pod: str = "python", version: str = "v1") -> Iterator[Server]:
    """Run the server in Python in a separate process while the block runs."""
    argv = [sys.executable, "-m", "stackbook.lessons.grpc.server", "--version", version, *flags]
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _running(argv, {"HOSTNAME": pod, "PYTHONPATH": path}) as server:
        yield server


@dataclass
class Pair:
    """A server in Go and one in Python, and a channel to each, until `close`.

    Attributes:
        go: the server in Go, in a separate process.
        to_go: a channel to it.
        python: host:port of the server in Python, which runs in this process.
        to_python: a channel to it.
    """

    go: Server
    to_go: grpc.Channel
    python: str
    to_python: grpc.Channel
    _keep: contextlib.ExitStack

    @classmethod
    def start(cls) -> Pair:
        """Start both."""
        keep = contextlib.ExitStack()
        go = keep.enter_context(go_server())
        python = keep.enter_context(serving())
        to_go, to_python = (keep.enter_context(channel(address)) for address in (go.address, python))
        return cls(go, to_go, python, to_python, keep)

    def close(self) -> None:
        """Stop both."""
        self._keep.close()


def go_client(*args: str, check: bool = True, timeout: float = 60.0) -> go_toolchain.Output:
    """Run the client in Go.

    Raises:
        ToolFailed: it failed and `check` is set.
    """
    argv = [str(build()["greeter-client"]), *args]
    return go_toolchain.call(argv, shown=("greeter-client", *args), check=check, timeout=timeout)


def counted(*args: str) -> dict[str, Any]:
    """Make many calls with the client in Go; returns how many each pod and version served, and their statuses."""
    found: dict[str, Any] = json.loads(go_client("-json", *args).stdout)
    return found


def certificates(folder: Path) -> Path:
    """Create temporary certificates in `folder`, valid for a day: ca, server (for localhost), client, stranger."""
    go_toolchain.call([str(build()["certs"]), str(folder)])
    return folder
