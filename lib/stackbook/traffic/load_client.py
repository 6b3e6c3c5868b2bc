"""Bounded traffic as a tidy table; each request has its own id.

The `load` program (lib/apps/cmd/load) sends the requests. It is the same on this host and in a pod of the mesh:

    plan = Plan([Group("jason", url, {"end-user": "jason"}), Group("control", url)], count=1500, rate=500)
    frame = send(FromHost(lab.local, program), plan, app="reviews")

Groups take turns, so each is the other's control in the same batch. If a request fails in the load program itself, its error
begins with "client:", and `from_mesh` leaves it out: it says nothing about the mesh.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import pandas as pd

from stackbook.core.errors import InputError, StackbookError
from stackbook.core.results import Result
from stackbook.core.waiting import pause, until
from stackbook.machines.transports import Host
from stackbook.traffic.request_keys import plain_id

COLUMNS = ("started", "status", "version", "seconds", "request_id", "flags", "error", "served_by", "group")
BOUNDS: Mapping[str, tuple[float, float]] = {
    "count": (1, 200_000),
    "rate": (0, 10_000),
    "seconds": (0.001, 600),
    "concurrency": (1, 256),
    "timeout": (0.001, 60),
    "warmup": (0, 200_000),
}
"""The hard limits; the load program enforces the same ones."""


class Source(Protocol):
    """A place from which requests are sent."""

    def run(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> Result:
        """Run the load program there; raises CommandFailed if it fails."""


@dataclass(frozen=True)
class FromHost:
    """Requests from a host, such as this host; `program` is the path of the load program on it."""

    host: Host
    program: str

    def run(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> Result:
        """See `Source`."""
        return self.host.run([self.program, *args], stdin=stdin, timeout=timeout)


class Executes(Protocol):
    """The part of `cluster.Kube` that runs a program in a pod."""

    def exec(
        self,
        namespace: str,
        target: str,
        *argv: str,
        container: str = "",
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
    ) -> Result:
        """Run a command in a container."""


@dataclass(frozen=True)
class FromPod:
    """Requests from inside the mesh: from a container beside a sidecar; `target` like deploy/load."""

    kube: Executes
    namespace: str
    target: str
    container: str = "load"
    program: str = "/usr/local/bin/load"

    def run(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> Result:
        """See `Source`."""
        return self.kube.exec(
            self.namespace, self.target, self.program, *args, container=self.container, stdin=stdin, timeout=timeout
        )


@dataclass(frozen=True)
class Group:
    """One kind of request."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"


@dataclass(frozen=True)
class Plan:
    """What to send. It ends after `count` requests or after `seconds`, whichever comes first.

    Args:
        groups: the kinds of requests, which take turns.
        count: the number of requests, without the warm-up.
        rate: requests started per second; 0 means as fast as answers come.
        seconds: for how long requests are started.
        concurrency: the maximum number of requests under way at once.
        timeout: seconds for one request, including its body.
        warmup: requests sent beforehand, at the same rate; they are not reported.
        fresh: a new connection for each request.

    Raises:
        InputError: a number is out of its bounds (`BOUNDS`), a URL is invalid, or two groups have the same name.
    """

    groups: Sequence[Group]
    count: int
    rate: float = 0
    seconds: float = 600
    concurrency: int = 16
    timeout: float = 15
    warmup: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            whole = name in ("count", "concurrency", "warmup")
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not low <= value <= high
            ):
                kind = "a whole number" if whole else "a number"
                raise InputError(f"{name} is {value!r}", fix=f"give {kind} from {low:g} to {high:g}")
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names):
            raise InputError(f"the groups are named {names}", fix="give at least one group, each with its own name")
        for group in self.groups:
            parts = urlsplit(group.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InputError(
                    f"{group.url!r} of group {group.name} is not an http URL", fix="write http://host:port/path"
                )

    @property
    def longest(self) -> float:
        """Seconds after which it has certainly ended, with a margin for start and stop."""
        return (2 if self.warmup else 1) * (self.seconds + self.timeout) + 20

    def text(self, ids: str) -> str:
        """The plan in the form that the program reads."""
        values = {name: getattr(self, name) for name in (*BOUNDS, "fresh")}
        groups = [{"name": g.name, "url": g.url, "method": g.method, "headers": dict(g.headers)} for g in self.groups]
        return json.dumps({**values, "ids": ids, "groups": groups})


def send(source: Source, plan: Plan, *, app: str = "") -> pd.DataFrame:
    """Send what the plan says, and return one line per request, in the order of their start.

    Columns: started (seconds since the start), status (0: no complete answer), version and served_by (version and pod
    of `app`, or of the nearest service if `app` is empty), seconds (until the body was read), request_id, flags
    (empty; see `with_flags`), error, group. `attrs` holds began (Unix time of the start), rate (requests per second)
    and late (the most seconds by which a request started late).

    Raises:
        CommandFailed, TransportError, WaitTimeout: the program failed or could not run.
        StackbookError: its report is incomplete.
    """
    return _send(source, plan, app, secrets.token_hex(9))


def _send(source: Source, plan: Plan, app: str, ids: str) -> pd.DataFrame:
    return parse(source.run("run", ids, stdin=plan.text(ids), timeout=plan.longest).stdout, app=app)


def parse(report: str, *, app: str = "") -> pd.DataFrame:
    """The table from a report of the load program; see `send`.

    Raises:
        StackbookError: the report is incomplete.
    """
    try:
        lines = [json.loads(line) for line in report.splitlines() if line.strip()]
        summary: dict[str, Any] = lines.pop()["summary"]
        if len(lines) != summary["sent"]:
            raise ValueError(f"{len(lines)} of {summary['sent']} lines")
        lines.sort(key=lambda line: line["n"])
        rows = [_row(line, app) for line in lines]
        attrs = {name: float(summary[name]) for name in ("began", "late", "seconds")}
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise StackbookError(
            f"the load program's report is incomplete: {error}", fix="send the requests again"
        ) from error
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs.update(attrs, rate=len(rows) / attrs["seconds"] if attrs["seconds"] else 0.0)
    return frame


def _row(line: Mapping[str, Any], app: str) -> tuple[Any, ...]:
    version, pod = _served(line["served"], line["pod"], app)
    return (
        float(line["at"]), int(line["status"]), version, float(line["seconds"]), str(line["id"]), "",
        str(line["error"]), pod, str(line["group"]),
    )  # fmt: skip


def _served(served: Sequence[str], podname: str, app: str) -> tuple[str, str]:
    """Version and pod: from X-Served-By ("reviews/v3 reviews-v3-5d6f"), else from the bookinfo sample's podname."""
    for entry in served:
        service, _, pod = entry.partition(" ")
        name, _, version = service.partition("/")
        if not app or name == app:
            return version, pod
    found = re.match(r"(.+)-(v\d+)-", podname)
    if found and app in ("", found[1]):
        return found[2], podname
    return "", ""


class Flow:
    """Traffic that is under way; `stop` ends it, `frame` waits for its end."""

    def __init__(self, source: Source, ids: str, report: Future[pd.DataFrame], longest: float) -> None:
        self._source, self._ids, self._report, self._longest = source, ids, report, longest

    @property
    def running(self) -> bool:
        """Whether it is still sending."""
        return not self._report.done()

    def answered(self) -> int:
        """Requests answered so far, without the warm-up; 0 before the start and after the end."""
        return int(self._source.run("answered", self._ids, timeout=20).stdout)

    def more(self, count: int) -> None:
        """Wait until `count` more requests are answered, however fast this machine sends them.

        Raises:
            StackbookError: the plan ended too early.
            CommandFailed, TransportError: the program ended with an error.
        """
        start, now = self.answered(), 0

        def enough() -> bool:
            nonlocal now
            if not self.running:
                sent = len(self.frame())
                raise StackbookError(
                    f"the traffic ended after {sent} requests, while {count} more were expected",
                    fix="give its plan more requests or more seconds",
                )
            now = self.answered()
            return now - start >= count

        until(
            enough, what=f"{count} more requests to be answered", timeout=self._longest, every=0.1,
            last=lambda: f"{now - start} answered",
        )  # fmt: skip

    def stop(self) -> None:
        """Stop starting requests, and wait for those under way."""

        def ended() -> bool:
            if self.running:  # repeated until it ends: a run that has just started may not be found yet
                self._source.run("stop", self._ids, timeout=20)
            return not self.running

        until(ended, what="the traffic to end", timeout=self._longest, every=0.2)

    def frame(self) -> pd.DataFrame:
        """Wait for the end, and return the table of `send`."""
        return self._report.result(self._longest)


@contextmanager
def flowing(source: Source, plan: Plan, *, app: str = "", lead: float = 0.0) -> Iterator[Flow]:
    """Send traffic while the block runs, and stop it afterwards, even after an error or an interrupt.

    Args:
        source: where the traffic comes from.
        plan: what is sent; it also ends by itself.
        app: see `send`.
        lead: seconds of traffic before the block, counted from the first answer; 0 for none.
    """
    ids = secrets.token_hex(9)
    with ThreadPoolExecutor(1, thread_name_prefix="traffic") as pool:
        flow = Flow(source, ids, pool.submit(_send, source, plan, app, ids), plan.longest)
        try:
            if lead:
                flow.more(1)
                pause(lead)
            yield flow
        finally:
            flow.stop()


def own_errors(frame: pd.DataFrame) -> pd.Series:
    """Which requests failed in the load program itself."""
    return frame["error"].str.startswith("client:")


def from_mesh(frame: pd.DataFrame) -> pd.DataFrame:
    """The requests that say something about the mesh: all but those that failed in the load program itself."""
    return frame[~own_errors(frame)]


def with_flags(frame: pd.DataFrame, access_log: Sequence[str]) -> pd.DataFrame:
    """The table with Envoy's response flags, from JSON access log lines of any proxies on the way.

    A request gets the flags of all its lines, sorted and joined by commas; a line without flags counts as "-". Envoy notes its
    sampling decision in the id's version digit, so that digit is not compared.
    """
    found: dict[str, set[str]] = {}
    for line in access_log:
        try:
            entry = json.loads(line)
            key, flags = plain_id(entry["request_id"]), entry["response_flags"]
        except (ValueError, LookupError, TypeError, OverflowError):
            continue  # not an access log line: the stream also has Envoy's own log
        found.setdefault(key, set()).update(str(flags or "-").split(","))
    joined = {key: ",".join(sorted(flags - {"-"})) or "-" for key, flags in found.items()}
    return frame.assign(flags=[joined.get(plain_id(key), "") for key in frame["request_id"]])
