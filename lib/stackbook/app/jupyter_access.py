"""The way into JupyterLab: a token that stands on no command line, in no log and in no environment of a notebook.

JupyterLab reads it from a file (JUPYTER_TOKEN_FILE,
https://jupyter-server.readthedocs.io/en/latest/operators/security.html), and then writes `...` in its place wherever it names its
address. So the address is told here: on a terminal, which keeps nothing; elsewhere by the name of a file that only its owner reads.
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
"""The scratch folder of the token: it goes with the process, or with the next one's sweep."""
_PORTS = 50


@dataclass(frozen=True)
class Access:
    """How to start JupyterLab, and how to reach it.

    Attributes:
        port: a free port of loopback.
        environment: what JupyterLab is to have in its environment.
        address: its address with the token.
        file: a file that holds the address.
    """

    port: int
    environment: Mapping[str, str]
    address: Secret
    file: Path

    @property
    def arguments(self) -> list[str]:
        """The arguments of JupyterLab: on loopback, on this port and no other, as the address names it."""
        return ["--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0"]

    def line(self, *, terminal: bool) -> str:
        """What to print before it is started.

        Args:
            terminal: it is printed on a terminal; elsewhere it may be kept, so the token is not in it.
        """
        if terminal:
            return f"JupyterLab: {self.address.reveal()}"
        return f"JupyterLab: its address with the token is in {self.file}"


def prepare(port: int) -> Access:
    """A new token in files of this process's own.

    Args:
        port: the first port to try.

    Raises:
        InputError: neither it nor one of the next is free.
    """
    found = _free(port)
    token = Secret(secrets.token_hex(24))
    address = Secret(f"http://127.0.0.1:{found}/lab?token={token.reveal()}", remember=False)
    folder = temp_dirs.of_this_process(NAME)
    held = private.write(folder / "token", token)
    file = private.write(folder / "address", address)
    env = {name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"}  # it would go before the file
    return Access(found, {**env, "JUPYTER_TOKEN_FILE": str(held)}, address, file)


def _free(first: int) -> int:
    """The first free port of loopback from `first` on."""
    for port in range(first, min(first + _PORTS, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as Tornado does: one that was just closed is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise InputError(f"no port from {first} on is free", fix="choose another with --port")
