"""The serial console of a virtual machine: what a person sees on its screen, and types on its keyboard."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from stackbook.core.errors import TransportError, WaitTimeout
from stackbook.machines.virtual.qemu import clean


class Console:
    """A connection to a console; while it is open, nobody else can use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._seen = ""

    def __enter__(self) -> Console:
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise TransportError(f"the console {self._path} could not be opened: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def type(self, line: str) -> None:
        """Type a line."""
        self._seen = ""
        self._socket.sendall(f"{line}\n".encode())

    def wait(self, text: str, *, what: str, timeout: float) -> str:
        """Wait until a text appears; returns what was shown since the last line was typed.

        Raises:
            WaitTimeout: it does not appear; the error has the last lines.
        """
        deadline = time.monotonic() + timeout
        while text not in self._seen:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(what, timeout, last=" | ".join(self.lines()[-4:]) or "nothing")
            self._socket.settimeout(left)
            try:
                part = self._socket.recv(4096)
            except TimeoutError:
                continue
            if not part:
                raise TransportError(f"the console was closed; its last lines: {' | '.join(self.lines()[-4:])}")
            self._seen += part.decode(errors="replace")
        return self._seen

    def lines(self) -> list[str]:
        """The lines that were shown since the last one was typed, without blank ones."""
        return [line for line in map(clean, self._seen.splitlines()) if line]
