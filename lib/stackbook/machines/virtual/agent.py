"""Commands on a virtual machine without a network, through QEMU's guest agent.

Two copies of one machine have the same address, so no network can tell them apart. The agent is reached by a socket of this host.
https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.core.errors import TransportError, WaitTimeout
from stackbook.core.redact import MASK, Secret
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.machines.transports import RunningHost, Text

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class AgentHost(RunningHost):
    """A machine whose guest agent listens behind a socket.

    Args:
        socket_path: the socket on this host.
    """

    socket_path: Path = Path()

    def _execute(
        self, argv: Sequence[str], *, stdin: Text | None, timeout: float, env: Mapping[str, str]
    ) -> tuple[Result, bool]:
        start = time.monotonic()
        given = stdin.reveal() if isinstance(stdin, Secret) else stdin or ""
        arguments: dict[str, Any] = {
            "path": "/usr/bin/env",
            "arg": [_PATH, "LANG=C.UTF-8", *(f"{key}={value}" for key, value in env.items()), *argv],
            "capture-output": True,
        }
        if stdin is not None:
            arguments["input-data"] = base64.b64encode(given.encode()).decode()
        try:
            with _Channel(self.socket_path, min(timeout, 20)) as channel:
                pid = channel.ask("guest-exec", arguments)["pid"]
                status: dict[str, Any] = {"exited": False}

                def exited() -> bool:
                    status.update(channel.ask("guest-exec-status", {"pid": pid}))
                    return bool(status["exited"])

                with contextlib.suppress(WaitTimeout):  # the caller says that it is late
                    until(exited, what=f"{argv[0]} to end", timeout=timeout, every=0.05)
        except (OSError, ValueError, KeyError) as error:
            raise TransportError(f"{self.name} could not be reached by its guest agent: {error}") from error
        code = status.get("exitcode", 128 + status.get("signal", 0)) if status["exited"] else 124
        out, err = (base64.b64decode(status.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data"))
        seconds = time.monotonic() - start
        shown = MASK if isinstance(stdin, Secret) else given
        return Result(tuple(argv), code, out, err, seconds, self.name, given=shown), not status["exited"]

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`; the file goes through the agent as text, so it should be small."""
        script = 'mkdir -p "$(dirname "$1")" && base64 -d > "$1" && chmod "$2" "$1"'
        permissions = f"{mode or local.stat().st_mode & 0o777:o}"
        self.run(["sh", "-c", script, "put", remote, permissions], stdin=base64.b64encode(local.read_bytes()).decode())


class _Channel:
    """A connection to one agent."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._path = path

    def __enter__(self) -> _Channel:
        try:
            self._open()
        except BaseException:
            self._socket.close()
            raise
        return self

    def _open(self) -> None:
        self._socket.connect(str(self._path))
        self._stream = self._socket.makefile("rwb")
        # The agent may still have an answer for somebody whose connection was cut: only what follows this number counts.
        number = secrets.randbelow(1 << 30)
        self._send({"execute": "guest-sync", "arguments": {"id": number}})
        while self._receive().get("return") != number:
            pass

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Give a command; returns the answer."""
        self._send({"execute": command, "arguments": arguments})
        answer = self._receive()
        if "error" in answer:
            raise ValueError(answer["error"].get("desc", "the agent refused"))
        found: dict[str, Any] = answer["return"]
        return found

    def _send(self, message: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(message).encode() + b"\n")
        self._stream.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise ValueError("the connection was closed")
        found: dict[str, Any] = json.loads(line)
        return found
