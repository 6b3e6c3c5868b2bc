"""Ports between this host's loopback interface and that of an engine's network, while a block runs.

A socket stays in the network namespace in which it was opened. So a process on one side, with sockets that listen on the other
(`forwarder`), carries the connections; nothing else of the two networks meets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts import go_toolchain
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed, InputError
from stackbook.lessons.containers import forwarder

if TYPE_CHECKING:
    from stackbook.lessons.containers.engine import Engine

_CLONE_NEWNET = 0x40000000
_WAITING = 128


def listening(port: int) -> socket.socket:
    """A socket that listens on a port of this host's 127.0.0.1.

    Raises:
        InputError: the port is in use.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
        found.listen(_WAITING)
    except OSError:
        found.close()
        raise InputError(f"port {port} of 127.0.0.1 is in use", fix="name another port in .env") from None
    return found


@contextlib.contextmanager
def published(engine: Engine, ports: Sequence[int]) -> Iterator[None]:
    """Connections to these ports of this host's 127.0.0.1 reach the same ports inside.

    Raises:
        InputError: a port is in use.
    """
    with contextlib.ExitStack() as scope:
        sockets = []
        for port in ports:
            sockets.append(scope.enter_context(listening(port)))
        if sockets:
            inside = ["nsenter", "--target", str(engine.inside), "--net", "--"]
            scope.enter_context(carried(sockets, ports, inside))
        yield


@contextlib.contextmanager
def reachable(engine: Engine, ports: Sequence[int]) -> Iterator[None]:
    """Connections to these ports of 127.0.0.1 inside reach the same ports of this host; nothing else of it can be reached.

    Raises:
        CheckFailed: a port cannot be opened inside.
    """
    with contextlib.ExitStack() as scope:
        sockets = [scope.enter_context(_inside(engine, port)) for port in ports]
        scope.enter_context(carried(sockets, ports))
        yield


@contextlib.contextmanager
def carried(sockets: Sequence[socket.socket], ports: Sequence[int], prefix: Sequence[str] = ()) -> Iterator[None]:
    """Carry connections from listening sockets to ports of 127.0.0.1, where the command `prefix` leads, while the block runs."""
    descriptors = [each.fileno() for each in sockets]
    argv = [*prefix, sys.executable, "-I", str(forwarder.__file__),
            *(f"{descriptor}:{port}" for descriptor, port in zip(descriptors, ports, strict=True))]  # fmt: skip
    process = subprocess.Popen(
        go_toolchain.guarded(argv), pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        end(process)


def _inside(engine: Engine, port: int) -> socket.socket:
    """A socket that listens on loopback inside; a thread of its own goes there for it, and ends there.

    Raises:
        CheckFailed: the kernel refuses it.
    """
    made: list[socket.socket | OSError] = []

    def work() -> None:
        listening = None
        try:
            with Path(f"/proc/{engine.inside}/ns/net").open("rb") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            listening = socket.socket()
            listening.bind(("127.0.0.1", port))
            listening.listen(_WAITING)
            made.append(listening)
        except OSError as error:
            if listening:
                listening.close()
            made.append(error)

    thread = threading.Thread(target=work, name="in-namespace")
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise CheckFailed(f"port {port} cannot be opened for the containers: {made[0]}")
    return made[0]
