"""Access to JupyterLab: a token that is on no command line, in no log, and in no notebook's environment.

JupyterLab reads it from a file (JUPYTER_TOKEN_FILE,
https://jupyter-server.readthedocs.io/en/latest/operators/security.html), and prints `...` in its place in its address. So
stackbook prints the address: on a terminal in full, elsewhere as the name of a file that only its owner can read.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stackbook.core import private, temp_dirs
from stackbook.core.errors import InputError
from stackbook.core.redact import Secret

NAME = "jupyter"
"""The scratch folder of the token: it is removed with the process, or by the next process."""
_PORTS = 50


@dataclass(frozen=True)
class Access:
    """How to start JupyterLab, and how to reach it.

    Attributes:
        port: a free port of loopback.
        environment: variables for JupyterLab's environment.
        address: its address with the token.
        file: a file that holds the address.
    """

    port: int
    environment: Mapping[str, str]
    address: Secret
    file: Path

    @property
    def arguments(self) -> list[str]:
        """JupyterLab's arguments: it listens on loopback, and only on this port, because the address names it."""
        return ["--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0"]

    def line(self, *, terminal: bool) -> str:
        """What to print before the start.

        Args:
            terminal: whether it is printed on a terminal; other output may be stored, so it must not contain the token.
        """
        if terminal:
            return f"JupyterLab: {self.address.reveal()}"
        return f"JupyterLab: its address with the token is in {self.file}"


def prepare(port: int) -> Access:
    """Create a new token, in this process's own files.

    Args:
        port: the first port to try.

    Raises:
        InputError: neither this port nor one of the next ports is free.
    """
    found = _free(port)
    token = Secret(secrets.token_hex(24))
    address = Secret(f"http://127.0.0.1:{found}/lab?token={token.reveal()}", remember=False)
    folder = temp_dirs.of_this_process(NAME)
    held = private.write(folder / "token", token)
    file = private.write(folder / "address", address)
    env = {
        name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"
    }  # it would take precedence over the file
    return Access(found, {**env, "JUPYTER_TOKEN_FILE": str(held)}, address, file)


def _free(first: int) -> int:
    """The first free loopback port, starting with `first`."""
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # like Tornado: a port that was just closed counts as free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise InputError(f"port {first} and the next ports are in use", fix="choose another with --port")
