"""The containers' health checks: Docker runs them itself, and here it is only noted when a container was healthy for the first time.

podman leaves them to systemd's timers, and inside its own namespaces there is no systemd. There, the lab runs them: a call of podman's
API runs one check and notes its result, which `depends_on: condition: service_healthy` waits for. A container that has not been
healthy since its start is checked each second, as with `start_interval` of newer Docker engines; from then on at the `interval` of
its file.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import httpx

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import beside
from stackbook.lessons.containers.docker_daemon import PROJECT
from stackbook.lessons.containers.engine import Engine

if TYPE_CHECKING:
    from stackbook.lessons.containers.engines import ContainerEngine

STARTING = 1.0
"""Seconds between two checks of a container that has not been healthy yet."""
_EVERY = 0.25
_WORKERS = 4


def of(engine: ContainerEngine, project: str) -> contextlib.AbstractContextManager[dict[str, float]]:
    """The health checks of a project's containers while the block runs; yields what `checked` yields."""
    return checked(engine) if isinstance(engine, Engine) else watched(engine, project)


@contextlib.contextmanager
def watched(engine: ContainerEngine, project: str) -> Iterator[dict[str, float]]:
    """Note when each container of a project was healthy for the first time, where the engine runs the checks."""
    first: dict[str, float] = {}
    with beside(lambda ended: _watch(engine, project, first, ended), name="health checks"):
        yield first


def _watch(engine: ContainerEngine, project: str, first: dict[str, float], ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        with contextlib.suppress(httpx.TransportError, CheckFailed):  # a container has just ended
            for entry in engine.containers():
                if entry["Labels"].get(PROJECT) != project or entry["Id"] in first:
                    continue
                checks = (engine.inspect(entry["Id"])["State"].get("Health") or {}).get("Log") or []
                if good := [check for check in checks if check["ExitCode"] == 0]:
                    first[entry["Id"]] = moment(good[0]["End"])


@contextlib.contextmanager
def checked(engine: Engine) -> Iterator[dict[str, float]]:
    """Run the checks of every container of an engine while the block runs.

    Yields a mapping that grows: when a container's first good check ended, by its id, in seconds since the epoch.
    """
    first: dict[str, float] = {}
    with beside(lambda ended: _loop(engine, first, ended), name="health checks"):
        yield first


def _loop(engine: Engine, first: dict[str, float], ended: threading.Event) -> None:
    due: dict[str, tuple[float, float]] = {}  # when the last check ended, and how long to wait after it
    busy: dict[str, Future[float | None]] = {}
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="health check") as pool:
        while not ended.wait(_EVERY):
            for container, result in list(busy.items()):
                if result.done():
                    pause = result.result()
                    due[container] = (time.monotonic(), float("inf") if pause is None else pause)
                    del busy[container]
            try:
                running = [entry for entry in engine.containers() if entry["State"] == "running"]
            except (httpx.TransportError, CheckFailed):
                continue  # the engine ends
            for entry in running:
                container = entry["Id"]
                last, pause = due.get(container, (0.0, 0.0))
                if entry["Status"] == "starting":  # again, if it was restarted
                    pause = min(pause, STARTING)
                if container not in busy and time.monotonic() >= last + pause:
                    busy[container] = pool.submit(_check, engine, container, first)


def _check(engine: Engine, container: str, first: dict[str, float]) -> float | None:
    """Run one check; returns the seconds until the next one, or None if the container has no check."""
    try:
        state = engine.inspect(container)
        check = state["Config"].get("Healthcheck") or {}
        if check.get("Test", ["NONE"]) == ["NONE"]:
            return None
        engine.get(f"/containers/{container}/healthcheck", timeout=check["Timeout"] / 1e9 + 30)
        health = engine.inspect(container)["State"]["Health"]
    except (httpx.TransportError, CheckFailed):
        return STARTING  # it has just ended, or is starting again
    if health["Status"] != "healthy":
        return STARTING
    first.setdefault(container, moment(health["Log"][-1]["End"]))
    return float(check["Interval"]) / 1e9


def moment(text: str) -> float:
    """A time of podman or Docker in seconds since the epoch; they write nanoseconds, which Python 3.11 reads only to microseconds.

    >>> moment("1970-01-01T00:00:01.500000000Z")
    1.5
    """
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()
