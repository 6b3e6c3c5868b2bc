"""Kernels that run as root, for a JupyterLab that does not.

The lab's machines belong to root, so a kernel that enters them must run as root. JupyterLab itself, its terminals and its files
belong to the user who called sudo. JupyterLab starts this module as its kernel. The module asks a small root helper for a real
kernel, over a socket that only that user can open, and exits when the kernel does. The helper only starts kernels.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOCKET = "STACKBOOK_KERNELS"
_LONGEST = 1 << 16
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Helper:
    """Starts a kernel for each connection of one user, and stops it when the connection closes.

    Args:
        path: the socket's path, in a folder that the user can enter but not change.
        uid: the user's id.
    """

    def __init__(self, path: Path, uid: int) -> None:
        self.path, self.uid = path, uid
        self._files: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Start kernels on request while the block runs; afterwards, stop those that still run."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            before = os.umask(0o177)
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(before)
            if os.geteuid() == 0:
                os.chown(self.path, self.uid, -1)
            listener.listen(16)
            accepting = threading.Thread(target=self._accept, args=(listener,), name="kernels", daemon=True)
            accepting.start()
            try:
                yield
            finally:
                self._ended.set()
                for thread in [accepting, *self._threads]:
                    thread.join(20)

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            if not select.select([listener], [], [], 0.2)[0]:
                continue
            connection, _ = listener.accept()
            thread = threading.Thread(target=self._answer, args=(connection,), name="kernel", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                file, folder = self._asked(connection)
            except (OSError, ValueError, KeyError, TypeError) as error:
                with contextlib.suppress(OSError):
                    connection.sendall(f"no kernel: {error}".encode())
                return
            with self._files[file]:  # a restarted kernel uses the ports of the one before
                status = self._run(connection, file, folder)
            with contextlib.suppress(OSError):
                connection.sendall(str(status).encode())

    def _asked(self, connection: socket.socket) -> tuple[str, str]:
        """The connection file and the working folder of the requested kernel.

        Raises:
            ValueError: the request comes from another user, or is not for a kernel.
        """
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != self.uid:
            raise ValueError(f"user id {uid} is not allowed to start kernels")
        connection.settimeout(10)
        text = b""
        while not text.endswith(b"\n"):
            part = connection.recv(4096)
            if not part or len(text) > _LONGEST:
                raise ValueError("the request is incomplete")
            text += part
        wish = json.loads(text)
        file, folder = str(wish["file"]), str(wish["folder"])
        seen = Path(file).lstat()
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != self.uid or seen.st_mode & 0o077:
            raise ValueError(f"{file} is not this user's own connection file")
        return file, folder if Path(folder).is_dir() else "/"

    def _run(self, connection: socket.socket, file: str, folder: str) -> int:
        kernel = subprocess.Popen(
            [sys.executable, "-m", "ipykernel_launcher", "-f", file],
            cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "JPY_PARENT_PID": str(os.getpid())},
        )  # fmt: skip
        try:
            while kernel.poll() is None and not self._ended.is_set():
                if select.select([connection], [], [], 0.1)[0] and not connection.recv(4096):
                    break  # JupyterLab has stopped the process that represents the kernel
        except OSError:
            pass
        finally:
            _end(kernel)
        return int(kernel.returncode)


def _end(process: subprocess.Popen[Any]) -> None:
    """Stop a kernel and all its child processes."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def specification(folder: Path) -> Path:
    """Write the kernel spec for JupyterLab, under the name that every notebook uses; returns the value for JUPYTER_PATH."""
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "stackbook.app.kernel_helper", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": True},
    }
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    for path in (folder, folder / "kernels", place, place / "kernel.json"):
        path.chmod(0o644 if path.is_file() else 0o755)
    return folder


def main(argv: list[str]) -> int:
    """Represent a root kernel: request it, and wait until it exits; returns its exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as helper:
        helper.connect(os.environ[SOCKET])
        helper.sendall(json.dumps({"file": argv[1], "folder": str(Path.cwd())}).encode() + b"\n")
        answer = b""
        while part := helper.recv(4096):
            answer += part
    try:
        return abs(int(answer))
    except ValueError:
        print(answer.decode(errors="replace") or "no kernel: the helper is not running", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
