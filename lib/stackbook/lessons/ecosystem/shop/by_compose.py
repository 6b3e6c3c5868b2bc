"""The bookshop by Docker Compose, and what it does when the same happens to it as to the one on Kubernetes."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from stackbook.core import temp_dirs
from stackbook.core.child_processes import free_port
from stackbook.core.errors import CheckFailed, HostUnfit
from stackbook.core.waiting import until
from stackbook.lessons.compose import health, project
from stackbook.lessons.containers import engines
from stackbook.lessons.containers.image_store import Wanted
from stackbook.lessons.ecosystem.shop import compose_files, customer
from stackbook.lessons.ecosystem.shop.under_requests import Requests, requests

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

COMPONENT = "docker-compose"
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True)
class Shop:
    """A bookshop that runs: its project, and its URL without a path."""

    project: project.Project
    url: str

    def query(self, statement: str) -> list[list[str]]:
        """The rows of a SQL statement, each a list of texts."""
        argv = ("mariadb", "--defaults-file=/secrets/client.cnf", "--batch", "--skip-column-names", "-e", statement)
        return [line.split("\t") for line in self.project.exec("mariadb", *argv).splitlines()]

    def starts(self) -> list[dict[str, Any]]:
        """For each container, in the order of the starts: when it started and was healthy, in seconds since the first start."""
        entries = self.project.containers()
        begin = min(_started(entry) for entry in entries)
        found = []
        for entry in sorted(entries, key=_started):
            healthy = self.project.healthy.get(entry["Id"])
            found.append({
                "container": entry["Name"].removeprefix(f"{self.project.name}-"),
                "service": entry["Config"]["Labels"][_SERVICE],
                "started": round(_started(entry) - begin, 1),
                "healthy": round(healthy - begin, 1) if healthy else None,
            })  # fmt: skip
        return found

    def mailed(self, placed: customer.Placed, *, timeout: float = 30.0) -> str:
        """Wait for the mail of an order; returns the id of the trace that it has.

        Raises:
            WaitTimeout: there is none in time.
        """
        if not re.fullmatch(r"[0-9a-f-]{36}", placed.order):
            raise CheckFailed(f"{placed.order!r} is not the id of an order")
        statement = f"SELECT trace_id FROM mail.mails WHERE order_id = '{placed.order}'"
        rows = until(lambda: self.query(statement), what="the mail of an order", timeout=timeout, every=0.2)
        return rows[0][0]

    def killed(self, service: str) -> Requests:
        """Kill a container's process under requests, and wait until it is healthy again."""
        container = self.project.container(service)["Id"]

        def kill() -> None:
            gone = self.project.engine.kill(container)
            until(lambda: self._again(container, gone), what=f"{service} to run again", timeout=60, every=0.1)

        return requests(f"{self.url}/books/hamlet", kill)

    def _again(self, container: str, gone: int) -> bool:
        state = self.project.engine.inspect(container)["State"]
        return state["Status"] == "running" and state["Pid"] not in (0, gone)

    def changed(self, service: str) -> Requests:
        """Replace a service's container under requests, as compose does after a change of its file."""
        argv = ("up", "--detach", "--wait", "--no-deps", "--force-recreate", "--pull", "never", service)
        return requests(f"{self.url}/books/hamlet", lambda: self.project.compose(*argv))

    def copies(self, orders: Iterable[str]) -> list[int]:
        """How many of these orders each container of `stock` handled, most first."""
        found = Counter({entry["Config"]["Hostname"]: 0 for entry in self.project.containers("stock")})
        return counted(self.project.logs("stock"), set(orders), found)

    def file_system(self, service: str, path: str) -> str:
        """The type of the file system that a file in a service's container is on, as stat(1) names it."""
        return self.project.exec(service, "busybox", "stat", "-f", "-c", "%T", path).strip()


def counted(lines: Iterable[str], orders: set[str], found: Counter[str]) -> list[int]:
    """How many of these orders each copy of `stock` handled, by its log lines, most first.

    Args:
        lines: JSON lines; others are skipped.
        orders: the orders' ids.
        found: the copies that there are, with 0.
    """
    for line in lines:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("order") in orders:
            found[entry["pod"]] += 1
    return sorted(found.values(), reverse=True)


def _started(entry: dict[str, Any]) -> float:
    return health.moment(entry["State"]["StartedAt"])


def why_not(artifacts: Resolver) -> str:
    """Why the shop cannot be run by compose here, with the fix; empty if it can. Nothing is built for the answer."""
    if artifacts.at_hand(COMPONENT) is None:
        return f"Docker Compose is not built yet, and the chapter goes on without it: stackbook fetch {COMPONENT} builds it"
    try:
        engines.demand()
    except HostUnfit as error:
        return f"this host cannot run it, and the chapter goes on without it: {error}"
    return ""


def images(artifacts: Resolver) -> list[Wanted]:
    """The images of the shop, from the lab's archives; packs the one that only compose needs."""
    found = []
    for name in compose_files.IMAGES.values():
        bundle = compose_files.BUNDLES.get(name)
        archive = artifacts.bundle(bundle).archive if bundle else artifacts.image(name).archive
        found.append(Wanted(artifacts.catalogue.image(name).reference, archive))
    return found


@contextlib.contextmanager
def running(artifacts: Resolver, *, timeout: float = 120.0) -> Iterator[Shop]:
    """Run the shop by compose while the block runs; afterwards nothing of it is left.

    Raises:
        HostUnfit: this host cannot run it.
        ArtifactError: a component cannot be obtained.
        WaitTimeout: a service is not healthy in time; the error names it, with its last log line.
    """
    program = artifacts.path(COMPONENT)
    wanted = images(artifacts)
    with temp_dirs.folder("bookshop") as folder, engines.running(wanted) as runs:
        port = free_port()
        compose_files.write(folder, _references(artifacts), port=port, pull="never")
        with project.up(runs, program, folder, timeout=timeout) as up:
            yield Shop(up, f"http://127.0.0.1:{port}")


def _references(artifacts: Resolver) -> dict[str, str]:
    return {name: artifacts.catalogue.image(name).reference for name in compose_files.IMAGES.values()}


def order(shop: Shop, *, name: str = "Ada") -> tuple[customer.Placed, str, float]:
    """Place an order and wait for its mail; returns the order, the trace of the mail, and the seconds that it took."""
    start = time.monotonic()
    with customer.customer(shop.url) as client:
        placed = customer.place(client, name, book="tempest", quantity=2)
    return placed, shop.mailed(placed), time.monotonic() - start


def orders(url: str, count: int, *, name: str = "Ada") -> list[str]:
    """Place some orders, each on a connection of its own; returns their ids."""
    anew = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, timeout=10.0, trust_env=False, limits=anew) as client:
        return [customer.place(client, name).order for _ in range(count)]


def rows(starts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`Shop.starts` as rows of a table; a container without a health check has ended before another one could wait for it."""
    return [{**row, "healthy": "it has ended" if row["healthy"] is None else row["healthy"]} for row in starts]


NEEDS = {
    "mariadb": ("folders",), "kafka": ("folders",), "stock": ("mariadb",), "mail": ("mariadb", "kafka"),
    "counter": ("mariadb", "kafka"), "orders": ("mariadb", "redis", "kafka", "stock"),
}  # fmt: skip
"""What each service waits for, by its `depends_on`; a unit test compares it with the file."""


@dataclass(frozen=True)
class Gate:
    """A container that waited for services: when the last of them was ready, and when it started, in seconds."""

    container: str
    ready: float
    started: float

    @property
    def kept(self) -> bool:
        """Whether it started afterwards."""
        return self.started >= self.ready


def gates(starts: list[dict[str, Any]]) -> list[Gate]:
    """The gates of each container that waits for services, from `Shop.starts`; none without containers.

    Raises:
        CheckFailed: a service was never healthy.
    """
    ready = {row["container"]: row["started"] if row["service"] == "folders" else row["healthy"] for row in starts}
    if missing := [container for container, moment in ready.items() if moment is None]:
        raise CheckFailed(f"never healthy: {', '.join(missing)}")
    found = []
    for row in starts:
        if needed := [
            ready[other["container"]] for other in starts if other["service"] in NEEDS.get(row["service"], ())
        ]:
            # One healthy copy is not enough: compose waits for all of them.
            found.append(Gate(row["container"], max(needed), row["started"]))
    return found
