"""Stopping, pausing and continuing the machines of a lab: those with its label, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stackbook.core.errors import StackbookError
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded

STOP_SECONDS = 12
"""What systemd has to end everything on a machine; podman ends what is left then."""
_ON = ("running", "paused", "stopping")


def running(provider: Embedded) -> list[str]:
    """The lab's containers that have processes, paused ones as well; sorted."""
    return sorted(name for name, state in provider.containers().items() if state in _ON)


def stop(provider: Embedded, *, say: Say) -> int:
    """Stop every machine of the lab that runs, all at once; returns how many there were.

    Raises:
        StackbookError: one of them runs on.
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
        return (answer.stderr.strip().splitlines() or ["podman says nothing"])[-1]

    if states:
        with ThreadPoolExecutor(max_workers=len(states)) as pool:
            said = dict(zip(states, pool.map(end, states), strict=True))
        if left := [name for name in running(provider) if name in states]:
            raise StackbookError(
                f"{left[0]} was told to stop and runs on: {said[left[0]]}", fix="stackbook stop, again"
            )
    return len(states)


@contextmanager
def paused(provider: Embedded) -> Iterator[list[str]]:
    """While the block runs, no process of the lab's machines goes on; yields the containers that ran before.

    What is on their disks is then what it was at one moment. Those that were paused before stay so.
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
    """Let these machines go on, if they are paused."""
    states = provider.containers() if names else {}
    still = [name for name in names if states.get(name) == "paused"]
    if still:
        _podman(provider, "unpause", *still)


def _podman(provider: Embedded, *words: str) -> None:
    provider.host.run([*provider.podman, *words], timeout=60)
