"""A container engine for the steps of Drone's pipelines: podman's API, with its own storage, in namespaces of its own.

Its containers, mounts and networks exist in a mount, a process and a network namespace that end with it, whatever happens. It
does not see the host's containers and images. In its network, only the addresses that `running` is given can be reached, so it
pulls nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_LIMITS, _MOST = (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)), 1 << 20
_SHORT = Path("/tmp")
"""Where its socket is: the user's temporary folder may be longer than the 107 bytes of a socket's address (unix(7))."""
_CGROUPS = Path("/sys/fs/cgroup")
_NAME = "engine"

# The process 1 of the namespace is a shell, because a shell collects the processes that lost their parent; podman does not.
# /run is its own, and empty: the host's has the state of the host's podman.
_INIT = """\
mount --make-rprivate / && mount -t tmpfs tmpfs /run || exit 1
archive="$1"; shift; names="$1"; shift; at="$1"; shift
"$@" load --quiet --input "$archive" && rm -f "$archive" || exit 1
for name in $names; do "$@" tag "$at" "$name" || exit 1; done
"$@" system service --time=0 "unix://$ENGINE_SOCKET" &
wait $!
"""


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        folder: everything that it writes, but its socket.
        process: the process that holds its namespaces.
        socket: its socket.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    socket: Path

    @property
    def host(self) -> str:
        """Its address, for DOCKER_HOST."""
        return f"unix://{self.socket}"

    def listens(self) -> bool:
        """Whether its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def ask(self, method: str, path: str) -> Any:
        """The JSON of an answer of its API; None if it has no body.

        Raises:
            httpx.HTTPError: it does not answer, or the status is not 2xx.
        """
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(
            transport=transport, base_url="http://engine/v4.0.0/libpod", timeout=20, trust_env=False
        ) as client:
            answer = client.request(method, path)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    def containers(self) -> list[dict[str, Any]]:
        """All containers, also those that have ended."""
        found: list[dict[str, Any]] = self.ask("GET", "/containers/json?all=true") or []
        return found

    def said(self) -> str:
        """The end of its log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


def demand() -> None:
    """Make sure that an engine can run here.

    Raises:
        CheckFailed: podman is not installed, or this process is not root, who alone can create the namespaces.
    """
    for program, package in (("podman", "podman"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            raise CheckFailed(
                f"{program} is not installed, but builds run in containers", fix=f"apt-get install {package}"
            )
    if os.geteuid():
        raise CheckFailed("builds run in containers of their own, which only root can create", fix="run it with sudo")


@contextlib.contextmanager
def running(
    archive: Path, reference: str, names: Sequence[str], ports: Sequence[int], *, timeout: float = 60.0
) -> Iterator[Engine]:
    """Run an engine that has one image under several names; afterwards, end it with everything in it.

    Args:
        archive: an OCI archive with one image; it is removed once it is loaded.
        reference: the image's name in the archive.
        names: its other names.
        ports: ports of this host's loopback interface that the steps can reach, where they ask for the network `host`.
        timeout: deadline in seconds.

    Raises:
        CheckFailed: the engine cannot run here, or has exited; the message has the end of its log.
        WaitTimeout: it does not answer in time.
    """
    demand()
    sweep()
    with (
        temp_dirs.folder(_NAME) as folder,
        temp_dirs.folder("socket", _SHORT) as place,
        contextlib.ExitStack() as scope,
    ):
        argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
                "sh", "-c", _INIT, "engine", str(archive), " ".join(names), reference, *_podman(folder)]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                go_toolchain.guarded(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                env={**_environment(folder), "ENGINE_SOCKET": str(place / "engine.sock")},
            )  # fmt: skip
        engine = Engine(folder, process, place / "engine.sock")
        scope.callback(_end, engine)
        until(lambda: _answers(engine), what="the container engine to answer", timeout=timeout, every=0.1,
              cause=engine.said, tolerate=(httpx.TransportError,))  # fmt: skip
        for port in ports:
            scope.enter_context(_reachable(process.pid, port))
        yield engine


def _podman(folder: Path) -> list[str]:
    return ["podman", "--root", str(folder / "root"), "--runroot", "/run/engine", "--tmpdir", "/run/engine-tmp",
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--network-config-dir", str(folder / "networks")]  # fmt: skip


def _environment(folder: Path) -> dict[str, str]:
    """The engine's environment: nothing of the host's settings for containers.

    podman's API gives each container 1048576 open files and processes, which fails where a hard limit is lower.
    """
    limits = [f'"{name}={_limit(kind)}:{_limit(kind)}"' for name, kind in _LIMITS]
    files = {
        "containers.conf": f"[containers]\ndefault_ulimits = [{', '.join(limits)}]\n",
        "storage.conf": f'[storage]\ndriver = "overlay"\nrunroot = "/run/engine"\ngraphroot = "{folder}/root"\n',
        "registries.conf": 'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "docker.io"\nblocked = true\n',
        "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8",
        "CONTAINERS_CONF": str(folder / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }  # fmt: skip


def _limit(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def _answers(engine: Engine) -> bool:
    if engine.process.poll() is not None:
        raise CheckFailed(f"the container engine exited with status {engine.process.returncode}: {engine.said()}")
    return engine.listens() and bool(engine.ask("GET", "/info"))


def _end(engine: Engine) -> None:
    """End the engine: first its containers, so that their control groups go, then everything else at once."""
    ids: list[str] = []
    try:
        with contextlib.suppress(httpx.HTTPError):
            ids = [container["Id"] for container in engine.containers()] if engine.listens() else []
            for one in ids:
                with contextlib.suppress(httpx.HTTPError):
                    engine.ask("DELETE", f"/containers/{one}?force=true&timeout=0")
    finally:  # unshare's death kills its child, and that ends the namespaces
        end(engine.process, steps=((signal.SIGKILL, 10.0),))
    _forget(ids)


def sweep() -> None:
    """Remove what the engine of a killed process left: the control groups of its containers, which are the host's, and its folder."""
    for folder in temp_dirs.abandoned(_NAME):
        _forget(path.name for path in (folder / "root" / "overlay-containers").glob("[0-9a-f]*") if path.is_dir())
    temp_dirs.sweep(_NAME)


def _forget(containers: Iterable[str]) -> None:
    """Remove the control groups of containers that have ended; the kernel keeps one that has a process."""
    for one in containers:
        for place in ("libpod_parent", "*/libpod_parent"):
            for group in _CGROUPS.glob(f"{place}/libpod-*{one}"):
                with contextlib.suppress(OSError):
                    group.rmdir()


@contextlib.contextmanager
def _reachable(pid: int, port: int) -> Iterator[None]:
    """Make a port of this host's loopback reachable at the same address in a process's network namespace."""
    listener = _listening(pid, port)
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, port, ended), name=f"port-{port}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        listener.close()


def _listening(pid: int, port: int) -> socket.socket:
    """A socket that listens on loopback in a process's network namespace, to which only a thread of its own goes.

    Raises:
        CheckFailed: the kernel refuses it.
    """
    made: list[socket.socket | OSError] = []

    def work() -> None:
        try:
            with Path(f"/proc/{pid}/ns/net").open("rb") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            listener = socket.socket()
            request = struct.pack("16sH14x", b"lo", 0)
            (flags,) = struct.unpack_from("H", fcntl.ioctl(listener, _SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(listener, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
            listener.bind(("127.0.0.1", port))
            listener.listen(16)
            listener.settimeout(0.2)
            made.append(listener)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=work, name="in-namespace")  # it ends there, and never works for anybody else
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise CheckFailed(f"port {port} cannot be opened for the steps: {made[0]}")
    return made[0]


def _serve(listener: socket.socket, port: int, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(TimeoutError, OSError):
            near, _ = listener.accept()
            near.settimeout(None)
            try:
                far = socket.create_connection(("127.0.0.1", port), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            threading.Thread(target=_join, args=(near, far), daemon=True).start()


def _join(near: socket.socket, far: socket.socket) -> None:
    with near, far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
