"""kubectl port-forward as a child process that ends with the block."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from stackbook.core.child_processes import end
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import beside

_LOOK = 0.5
"""How many seconds pass between two looks at a forward that is kept."""


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


@contextlib.contextmanager
def kept(command: Sequence[str], environment: Mapping[str, str], identity: Callable[[], str]) -> Iterator[None]:
    """Run `kubectl port-forward` while the block runs, for each pod of a name that becomes Ready, and again when it ends.

    It starts only when the pod is Ready, and ends when it is not: kubectl does not always notice that its pod is gone, and may
    hang for good after connections that the program in the pod did not accept yet. It ends at once while another process
    forwards the same port, which then serves both; if that process ends, this one takes over. Whoever uses the port waits
    until it answers.

    Args:
        command: the command.
        environment: the environment variables with which it reaches the cluster.
        identity: returns what differs from pod to pod, or an empty text while none is Ready.
    """
    # If this process is killed, the kernel ends kubectl: otherwise it would hold the port (prctl(2), PR_SET_PDEATHSIG).
    guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []

    def forward(ended: threading.Event) -> None:
        while not ended.is_set():
            if not (mine := identity()):
                ended.wait(_LOOK)
                continue
            process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            try:
                while process.poll() is None and not ended.wait(_LOOK) and identity() == mine:
                    pass
            finally:
                end(process, steps=((signal.SIGTERM, 5.0),), group=True)
            ended.wait(_LOOK)

    with beside(forward, name="port-forward"):
        yield


def instance(pod: Mapping[str, Any]) -> str:
    """What differs from one pod of a name, and one start of its containers, to the next; empty if the pod is not Ready.

    Args:
        pod: the pod as the official client returns it (`to_dict`).

    >>> instance({"metadata": {"uid": "1"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    ''
    """
    status = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    if not ready or pod["metadata"].get("deletion_timestamp"):
        return ""
    starts = [str(container.get("restart_count")) for container in status.get("container_statuses") or ()]
    return " ".join([pod["metadata"]["uid"], *starts])


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
