"""The same work on several machines at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stackbook.core.results import Result
from stackbook.machines.transports import Host

T = TypeVar("T")
_AT_ONCE = 4


def on_each(machines: Mapping[str, Host], work: Callable[[str, Host], T]) -> dict[str, T]:
    """Do the same on each machine, on up to four at a time; returns the results by name, in the order of the machines.

    Those who observe the machines hear of the commands only at the end, machine by machine: a record reads as if the
    machines had followed each other.

    Args:
        machines: the machines by name.
        work: called with the name and the machine, each time in a thread of its own.

    Raises:
        Exception: the work failed on a machine; with several, the error of the first of them. The others have finished.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        jobs = {name: pool.submit(_overheard, name, host, work) for name, host in machines.items()}
    results = {name: job.result() for name, job in jobs.items()}
    for name, (_, heard, _) in results.items():
        for observe in getattr(machines[name], "observers", ()):
            for result in heard:
                observe(result)
    for _, _, error in results.values():
        if error is not None:
            raise error
    return {name: done[0] for name, (done, _, _) in results.items()}


def _overheard(name: str, host: Host, work: Callable[[str, Host], T]) -> tuple[list[T], list[Result], Exception | None]:
    """What the work returned, in a list that is empty if it failed; the commands; and the error."""
    heard: list[Result] = []
    told = getattr(host, "observers", [])
    host.observers = [heard.append]  # type: ignore[attr-defined]
    try:
        return [work(name, host)], heard, None
    except Exception as error:
        return [], heard, error
    finally:
        host.observers = told  # type: ignore[attr-defined]
