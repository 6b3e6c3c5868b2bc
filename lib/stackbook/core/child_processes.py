"""Child processes: stopping them, and finding a free port for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Any


def end(
    process: subprocess.Popen[Any],
    *,
    steps: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),),
    group: bool = False,
) -> None:
    """Stop a child process, with SIGKILL as the last resort, and wait for its end.

    Args:
        process: the process; nothing happens if it has ended.
        steps: the signals to send first, each with the seconds to wait afterwards.
        group: signal the process group that it leads, even if the process itself has ended.
    """
    if process.poll() is not None and not group:
        return
    for number, patience in (*steps, (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def free_port() -> int:
    """A free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
