"""Stop, pause and unpause the machines with the lab's label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stackbook.core.errors import StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.providers.podman_removal import SLOW_TO_END

STOP_SECONDS = 12
"""How long systemd may take to stop everything on a machine; then podman kills what is left."""
KILL_SECONDS = 60.0
"""How long the processes that podman has killed may still exist."""
_ON = ("running", "paused", "stopping")


def running(provider: Embedded) -> list[str]:
    """The lab's containers that have processes, including paused ones; sorted."""
    return sorted(name for name, state in provider.containers().items() if state in _ON)


def stop(provider: Embedded, *, say: Say) -> int:
    """Stop all running machines of the lab at the same time; returns how many there were.

    Raises:
        StackbookError: a machine still runs.
    """
    states = {name: state for name, state in provider.containers().items() if state in _ON}
    for name in states:
        say(f"stopping {name}")

    def end(name: str) -> str:
        if states[name] == "paused":
            _podman(provider, "unpause", name)
        answer = provider.host.run(
            [*provider.podman, "stop", "-t", str(STOP_SECONDS), name], check=False, timeout=STOP_SECONDS + 60
        )
        return (answer.stderr.strip().splitlines() or ["podman printed nothing"])[-1]

    if states:
        with ThreadPoolExecutor(max_workers=len(states)) as pool:
            said = dict(zip(states, pool.map(end, states), strict=True))
        _await_end(provider, states, said)
    return len(states)


def _await_end(provider: Embedded, names: Collection[str], said: Mapping[str, str]) -> None:
    """Wait for processes that exist for longer than the 5 s that podman waits after SIGKILL."""
    killed = any(SLOW_TO_END in text for text in said.values())

    def left() -> list[str]:
        return [name for name in running(provider) if name in names]

    try:
        until(lambda: not left(), what="the machines to stop", timeout=KILL_SECONDS if killed else 0, every=1)
    except WaitTimeout as late:
        if still := left():
            raise StackbookError(
                f"{still[0]} was told to stop but still runs: {said[still[0]]}", fix="stackbook stop, again"
            ) from late


@contextmanager
def paused(provider: Embedded) -> Iterator[list[str]]:
    """Pause the lab's machines while the block runs; yields the containers that were running.

    Their disks do not change meanwhile. Machines that were paused before stay paused.
    """
    states = provider.containers()
    names = sorted(name for name, state in states.items() if state == "running")
    try:
        if names:
            _podman(provider, "pause", *names)
        yield names
    finally:
        again(provider, names)


def again(provider: Embedded, names: Sequence[str]) -> None:
    """Unpause these machines if they are paused."""
    states = provider.containers() if names else {}
    still = [name for name in names if states.get(name) == "paused"]
    if still:
        _podman(provider, "unpause", *still)


def _podman(provider: Embedded, *words: str) -> None:
    provider.host.run([*provider.podman, *words], timeout=60)
