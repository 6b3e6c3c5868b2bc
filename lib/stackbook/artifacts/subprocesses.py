"""Child processes that never outlive this process; their output is read line by line and logged."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from stackbook.core.child_processes import end


class Cancelled(KeyboardInterrupt):
    """The work was interrupted; what is finished is kept for the next time."""


class Spawn(Protocol):
    """Runs a command; tests replace it by a fake."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_line: Callable[[str], None],
        on_tick: Callable[[float], None],
        cancel: threading.Event,
    ) -> int:
        """Return the exit status; stdout and stderr together go to `on_line` and `log`, line by line."""


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    on_line: Callable[[str], None],
    on_tick: Callable[[float], None],
    cancel: threading.Event,
) -> int:
    """Run `argv`, calling `on_tick(seconds)` about twice a second.

    The kernel ends the child if this process dies (`setpriv --pdeathsig`, prctl(2) PR_SET_PDEATHSIG). Otherwise a killed
    prefetcher would leave its compiler behind, which would slow down the process that takes over.

    Raises:
        Cancelled: `cancel` was set; the child and what it had started got SIGTERM and, at most 10 s later, SIGKILL.
    """
    guard = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [*guard, *argv], cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

        def pump() -> None:
            assert child.stdout is not None
            for raw in child.stdout:
                if sink.closed:  # a grandchild that outlives the child still writes
                    return
                sink.write(raw)
                on_line(raw.decode("utf-8", "replace").rstrip("\n"))

        reader = threading.Thread(target=pump, daemon=True)
        reader.start()
        try:
            while True:
                try:
                    child.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    on_tick(time.monotonic() - start)
                if cancel.is_set():
                    raise Cancelled
        except BaseException:
            end(child, group=True)
            with contextlib.suppress(ProcessLookupError):  # compilers that outlived the program which had started them
                os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            reader.join(timeout=10)
            if child.stdout is not None and not reader.is_alive():
                child.stdout.close()
    return child.returncode
