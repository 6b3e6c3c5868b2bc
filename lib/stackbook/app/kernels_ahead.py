"""Kernels that are started ahead: the next chapter's kernel imports what it needs while the current chapter still runs.

A kernel needs most of a second until it can execute a chapter's first cell, half of it for imports, and its first cell needs as long
again for the imports of its chapter. A process that is ahead does all of them, and then waits for a line on its standard input, which
says for which kernel. If the run ends, or is killed, it reads the end of its input instead, and exits. Until it is needed, it takes only
processor time that nobody else wants (sched(7), SCHED_IDLE).

https://jupyter-client.readthedocs.io/en/stable/provisioning.html
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from stackbook.core.child_processes import end

_LAUNCHER = "ipykernel_launcher"
_PARENT = "JPY_PARENT_PID"
"""By this variable a kernel knows whose it is: it ends when this process does. ipykernel reads it when it is imported."""
_USUAL = (
    "ipykernel.ipkernel",
    "pandas",
    "matplotlib.pyplot",
    "kubernetes.dynamic",
    "stackbook.app.session",
    "stackbook.artifacts.resolver",
)
"""What nearly every chapter needs. Some of it is imported only where it is used, because commands without a kernel are faster so."""


class Ahead:
    """At most one process that is ahead.

    Attributes:
        wanted: the notebook of the kernel that will be needed after the one that is started next; None if there is none.
    """

    def __init__(self) -> None:
        self.wanted: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, *, now: bool = False) -> None:
        """Start a process if one is wanted and none is there; with `now`, it is needed at once."""
        if self.wanted is None or self._process is not None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.wanted)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, _PARENT: str(os.getpid())},
        )  # fmt: skip
        if not now:
            _schedule(self._process.pid, os.SCHED_IDLE)

    def take(self, cmd: list[str], cwd: str, env: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Let the process become a kernel; None if there is none, or if it would be another kernel than that of the command."""
        process, self._process = self._process, None
        if process is None:
            return None
        _schedule(process.pid, os.SCHED_OTHER)
        line = json.dumps({
            "arguments": cmd[cmd.index(_LAUNCHER) + 1 :] if _LAUNCHER in cmd else [], "cwd": cwd,
            "env": {**env, _PARENT: str(os.getpid())},
        })  # fmt: skip
        fits = _LAUNCHER in cmd and Path(cmd[0]).resolve() == Path(sys.executable).resolve()
        if not fits or process.poll() is not None or not _told(process, line):
            _drop(process)
            return None
        return process

    def close(self) -> None:
        """End the process."""
        self.wanted = None
        if self._process is not None:
            _drop(self._process)
            self._process = None


def _schedule(pid: int, policy: int) -> None:
    """Give all threads of a process a scheduling policy; only root may, because nobody else could take SCHED_IDLE back."""
    if os.geteuid():
        return
    with contextlib.suppress(OSError):  # it has just ended
        for thread in _threads(pid):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))


def _threads(pid: int) -> Iterator[Path]:
    """The threads of a process, all of them twice: one that was not seen to yet may have started another."""
    for _ in range(2):
        yield from Path(f"/proc/{pid}/task").iterdir()


def _told(process: subprocess.Popen[bytes], line: str) -> bool:
    """Whether the process could be told; it may just have ended."""
    assert process.stdin is not None
    try:
        process.stdin.write(f"{line}\n".encode())
        process.stdin.close()
    except OSError:
        return False
    return True


def _drop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    end(process, steps=((signal.SIGTERM, 2.0),))
    with contextlib.suppress(OSError):
        process.stdin.close()


def log(run: Path) -> IO[bytes]:
    """Where the kernels of a run write their standard error: a killed kernel's last words do not belong on the terminal."""
    return (run / "kernels.log").open("ab")


AHEAD = Ahead()
"""The process of this run."""


@contextlib.contextmanager
def ahead() -> Iterator[Ahead]:
    """The process of this run; it is ended with the block."""
    try:
        yield AHEAD
    finally:
        AHEAD.close()


class AheadProvisioner(LocalProvisioner):
    """jupyter_client's provisioner; it takes the process that is ahead, if there is one."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """See jupyter_client."""
        env = kwargs.get("env") or dict(os.environ)
        process = AHEAD.take(cmd, str(kwargs.get("cwd") or Path.cwd()), env)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid = process, process.pid, os.getpgid(process.pid)
        return self.connection_info


def modules(notebook: Path) -> list[str]:
    """The modules that a notebook's import statements name, in their order; none of a notebook that cannot be read.

    `from a.b import c` names a.b and a.b.c, which need not be a module.
    """
    found: dict[str, None] = {}
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for statement in (one for source in sources for one in ast.parse(source).body):
            if isinstance(statement, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in statement.names))
            elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
                found[statement.module] = None
                found.update(dict.fromkeys(f"{statement.module}.{alias.name}" for alias in statement.names))
    except (OSError, ValueError, LookupError, TypeError, SyntaxError):  # executing the notebook reports that
        return []
    return list(found)


def _leave(status: list[int]) -> None:
    """End a kernel without taking the interpreter apart, which takes 0.2 s with all these modules; the last thing done at exit."""
    if not status:  # it never became a kernel, or failed
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status[0])


def main() -> int:
    """The process: imports, waits, and becomes the kernel."""
    status: list[int] = []
    atexit.register(_leave, status)  # what is registered first is called last
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():  # as ipykernel_launcher does
        del sys.path[0]
    from ipykernel import kernelapp

    if not os.environ.get("MPLBACKEND"):  # as ipykernel does: Matplotlib reads it when it is imported
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in (*_USUAL, *modules(Path(sys.argv[1]))):
        with contextlib.suppress(ImportError):  # it names a function, or the chapter's cell reports that
            importlib.import_module(name)

    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    told = json.loads(line)
    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    if run := os.environ.get("STACKBOOK_RUN"):
        with log(Path(run)) as stderr:
            os.dup2(stderr.fileno(), 2)
    sys.argv = [_LAUNCHER, *told["arguments"]]
    kernelapp.launch_new_instance()
    status.append(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
