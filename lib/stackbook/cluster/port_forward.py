"""kubectl port-forward as a child process that ends with the block."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from stackbook.core.child_processes import end
from stackbook.core.errors import WaitTimeout


@contextlib.contextmanager
def forwarding(command: Sequence[str], environment: Mapping[str, str], what: str, timeout: float) -> Iterator[int]:
    """Run `kubectl port-forward` while the block runs; yields the local port.

    Raises:
        WaitTimeout: kubectl did not start to listen within `timeout` seconds; the message contains its output.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield _listening(process, what, timeout)
    finally:
        end(process, steps=((signal.SIGTERM, 5.0),), group=True)
        if process.stdout:
            process.stdout.close()


def _listening(process: subprocess.Popen[bytes], what: str, timeout: float) -> int:
    """The local port in the output of kubectl port-forward."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    said = b""
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            said += os.read(process.stdout.fileno(), 4096)
            for line in said.decode(errors="replace").splitlines():
                if line.startswith("Forwarding from 127.0.0.1:"):
                    return int(line.split(":")[1].split()[0])
    raise WaitTimeout(f"port-forward to {what}", timeout, last=said.decode(errors="replace").strip()[-300:])
