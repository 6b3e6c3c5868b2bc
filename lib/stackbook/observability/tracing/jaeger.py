"""Jaeger's API over a port-forward: traces as tables.

    with Jaeger(lab.kube) as jaeger:
        jaeger.services(), jaeger.find("reviews.default", since=began, tags={"response_flags": "FI"})

The API is that of Jaeger's own page: github.com/jaegertracing/jaeger cmd/query/app/http_handler.go.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import httpx
import pandas as pd

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, StackbookError, TransportError, WaitTimeout
from stackbook.core.waiting import pause
from stackbook.core.waiting import until as wait_until
from stackbook.observability.tracing.span_table import parse

SERVICE, PORT, BASE = "svc/tracing", 80, "/jaeger/api"
_IDS_AT_ONCE = 100


class Forwards(Protocol):
    """The part of `cluster.Kube` that this module needs."""

    def port_forward(
        self, namespace: str, target: str, port: int, *, timeout: float = 20.0
    ) -> contextlib.AbstractContextManager[int]:
        """A free local port, forwarded while the block runs."""


class Jaeger:
    """A connection to Jaeger while the block runs; if its pod restarts, it reconnects.

    Args:
        kube: opens the port-forward.
        timeout: deadline of one request, in seconds.
        back: seconds within which a restarted pod has to answer again.
    """

    def __init__(self, kube: Forwards, *, timeout: float = 60.0, back: float = 30.0) -> None:
        self._kube, self._timeout, self._back = kube, timeout, back
        self._open = contextlib.ExitStack()
        self._client: httpx.Client | None = None

    def __enter__(self) -> Jaeger:
        """Open the port-forward."""
        self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it again."""
        self._client = None
        self._open.close()

    def _connect(self) -> httpx.Client:
        self._client = None
        self._open.close()
        port = self._open.enter_context(self._kube.port_forward(here().monitoring, SERVICE, PORT))
        # No proxy from the environment: the address is this host's loopback.
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=self._timeout, trust_env=False)
        self._client = self._open.enter_context(client)
        return client

    def _get(self, path: str, params: Any = None) -> list[Any]:
        """The `data` of an answer.

        Raises:
            TransportError: Jaeger could not be reached, even after reconnecting.
            CheckFailed: Jaeger answers with an error.
        """
        deadline, wait = time.monotonic() + self._back, 0.0  # the first failure can be a stale port-forward
        while True:
            try:
                answer = (self._client or self._connect()).get(BASE + path, params=params)
                break
            except (httpx.TransportError, WaitTimeout) as error:
                self._client = None
                if time.monotonic() >= deadline:
                    raise TransportError(
                        f"the request {path} to Jaeger failed: {error!r}",
                        fix=f"check its pod: kubectl get pods -n {here().monitoring} -l app=jaeger",
                    ) from error
            pause(wait)
            wait = 0.5
        if answer.status_code != 200:
            raise CheckFailed(f"Jaeger answers {path} with {answer.status_code}: {answer.text.strip()[:300]}")
        return answer.json()["data"] or []

    def services(self) -> list[str]:
        """The services that have sent spans, by name, as "reviews.default"."""
        return sorted(str(name) for name in self._get("/services"))

    def traces(self, ids: Iterable[str]) -> pd.DataFrame:
        """The spans of these traces; traces that Jaeger does not have are left out. See `span_table.parse` for the columns."""
        wanted = list(ids)
        found: list[Any] = []
        for first in range(0, len(wanted), _IDS_AT_ONCE):
            found += self._get("/traces", [("traceID", id) for id in wanted[first : first + _IDS_AT_ONCE]])
        return parse(found)

    def find(
        self,
        service: str,
        *,
        since: float,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int = 20_000,
    ) -> pd.DataFrame:
        """The spans of the traces in which a service has a span, if given with these tags.

        Args:
            service: as Jaeger names it, such as "reviews.default".
            since: only spans that started at this Unix time or later.
            until: only spans that started before this Unix time; by default now.
            tags: tags with their values; one span must have all of them.
            limit: the maximum number of traces.

        Raises:
            CheckFailed: there may be more than `limit` traces.
        """
        return parse(self.answers(service, since=since, until=until, tags=tags, limit=limit))

    def answers(
        self,
        service: str,
        *,
        since: float,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int = 20_000,
    ) -> list[Any]:
        """The traces as Jaeger gives them; arguments and errors as for `find`."""
        query: dict[str, Any] = {
            "service": service, "start": round(since * 1e6), "end": round((until or time.time()) * 1e6), "limit": limit,
        }  # fmt: skip
        if tags:
            query["tags"] = json.dumps(dict(tags))
        found = self._get("/traces", query)
        if len(found) >= limit:
            raise CheckFailed(f"{service} has {limit} traces or more in that period", fix="query a shorter period")
        return found

    def dependencies(self, *, since: float) -> dict[tuple[str, str], int]:
        """Which service called which, and how often, according to Jaeger itself, from a Unix time until now.

        Jaeger's badger storage looks at no more than 100 traces for this.
        """
        now = time.time()
        query = {"endTs": round(now * 1e3), "lookback": round((now - since) * 1e3)}
        return {(str(d["parent"]), str(d["child"])): int(d["callCount"]) for d in self._get("/dependencies", query)}

    def wait(
        self, ids: Iterable[str], enough: Callable[[pd.DataFrame], bool], *, what: str, timeout: float = 15.0
    ) -> pd.DataFrame:
        """Poll for these traces until enough spans have arrived.

        Raises:
            WaitTimeout: the error has the number of spans that have arrived.
        """
        wanted = list(ids)
        last = parse([])

        def complete() -> bool:
            nonlocal last
            last = self.traces(wanted)
            return enough(last)

        wait_until(
            complete,
            what=what,
            timeout=timeout,
            every=0.1,
            last=lambda: (
                f"{len(last)} spans of {last['trace_id'].nunique()} traces: {sorted(last['service'].unique())}"
            ),
            tolerate=(StackbookError,),
        )
        return last
