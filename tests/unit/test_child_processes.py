"""Child processes are stopped, also those that ignore the first signals, with all that they started."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from stackbook.core.child_processes import end, free_port
from stackbook.core.waiting import until

STUBBORN = "trap '' TERM INT; echo ready; while :; do sleep 0.1; done"


def started(script: str, *, group: bool = False) -> subprocess.Popen[str]:
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=group)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def running(pid: str) -> bool:
    """Whether a process runs: a zombie that nobody has waited for does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("script", "status"), [("echo ready; exec sleep 60", -signal.SIGTERM), (STUBBORN, -signal.SIGKILL)]
)
def test_a_process_is_stopped(script: str, status: int) -> None:
    with started(script) as process:
        began = time.monotonic()
        end(process, steps=((signal.SIGTERM, 0.2),))
        assert process.returncode == status
        assert time.monotonic() - began < 5
        end(process)  # once more: nothing happens


def test_a_group_is_stopped_with_what_it_started() -> None:
    with started("sleep 60 & echo $!; wait", group=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        end(process, group=True)
        assert process.returncode == -signal.SIGTERM
        until(lambda: all(not running(child) for child in children), what="its child to end", timeout=10, every=0.02)


def test_a_free_port_can_be_used() -> None:
    assert 1024 <= free_port() <= 65535
