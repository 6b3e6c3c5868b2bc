"""Elasticsearch by its official client, over a port-forward, which is closed after the block.

    with opened(lab.kube) as store:
        store.documents({"term": {"service": "reviews"}})

https://www.elastic.co/guide/en/elasticsearch/client/python-api/8.19/
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.redact import Secret, redact
from stackbook.core.waiting import pause, until
from stackbook.observability.logs import credentials

if TYPE_CHECKING:
    import elasticsearch

    from stackbook.cluster.kube import Kube

T = TypeVar("T")
# The pod, not the service: otherwise a fault of the service could not be examined.
TARGET, PORT = "pod/elasticsearch-0", 9200
INDICES = "logstash-*"
NEWEST_FIRST = ({"@timestamp": "desc"},)
_PAGE = 5000
_MOST = 200_000
_STARTING = 15.0
"""How many seconds the shard of a new index may take to start."""


@dataclass(frozen=True)
class Store:
    """The logs in an Elasticsearch; `client` is the official client, for everything else."""

    client: elasticsearch.Elasticsearch

    def about(self) -> dict[str, str]:
        """What the server reports about itself: version, flavour, licence, and the tagline of GET /, if it has that page."""
        import elasticsearch

        node = next(iter(self.client.nodes.info(node_id="_local", metric="_none")["nodes"].values()))
        licence = self.client.license.get()["license"]["type"]
        try:
            tagline = str(self.client.info()["tagline"])
        except elasticsearch.ApiError as error:  # the smallest distribution lacks this module
            if error.status_code != 405:
                raise
            tagline = ""
        return {"version": node["version"], "flavour": node["build_flavor"], "licence": licence, "tagline": tagline}

    def count(self, query: Mapping[str, Any] | None = None) -> int:
        """How many documents match a query; None counts all."""
        found = started(lambda: self.client.count(index=INDICES, query=dict(query or {"match_all": {}})))
        return int(found["count"])

    def documents(
        self, query: Mapping[str, Any], *, fields: Sequence[str] = (), most: int = _MOST
    ) -> list[dict[str, Any]]:
        """The documents that match, oldest first, with their id as `_id` and their index as `_index`.

        Args:
            query: the query, in Elasticsearch's query language.
            fields: which parts of a document; empty means all.
            most: the maximum number of documents.

        Raises:
            CheckFailed: more documents match, or Elasticsearch refuses the query.
        """
        from elasticsearch import helpers

        body: dict[str, Any] = {"query": dict(query), "sort": [{"@timestamp": "asc"}], "_source": list(fields) or True}

        def ask() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            for hit in helpers.scan(
                self.client, query=body, index=INDICES, size=_PAGE, preserve_order=True, scroll="1m"
            ):
                found.append({**hit["_source"], "_id": hit["_id"], "_index": hit["_index"]})
                if len(found) > most:
                    raise CheckFailed(f"more than {most} documents match", fix="query a shorter period")
            return found

        return started(ask)

    def aggregate(self, query: Mapping[str, Any], **aggregations: Mapping[str, Any]) -> dict[str, Any]:
        """The results of aggregations over the documents that match, by name."""
        answer = started(
            lambda: self.client.search(index=INDICES, query=dict(query), size=0, aggregations=dict(aggregations))
        )
        return dict(answer["aggregations"])

    def newest(self, query: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
        """The newest documents that match, newest first."""
        answer = started(
            lambda: self.client.search(index=INDICES, query=dict(query), size=count, sort=list(NEWEST_FIRST))
        )
        return [{**hit["_source"], "_id": hit["_id"]} for hit in answer["hits"]["hits"]]


def started(ask: Callable[[], T]) -> T:
    """The answer to a search. It is 503 while a shard starts, because a day's first line creates a new index.

    Raises:
        CheckFailed: Elasticsearch refuses the search, or the shard did not start in time.
    """
    import elasticsearch

    deadline = time.monotonic() + _STARTING
    with _said():
        while True:
            try:
                return ask()
            except elasticsearch.ApiError as error:
                if error.status_code != 503 or time.monotonic() > deadline:
                    raise
                pause(0.3)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Turn an error of the client into one line of stackbook's own."""
    import elasticsearch

    try:
        yield
    except elasticsearch.NotFoundError as error:
        raise CheckFailed(
            f"Elasticsearch did not find what was requested: {error.message}", fix="stackbook run --only 12"
        ) from error
    except (elasticsearch.ApiError, elasticsearch.TransportError) as error:
        raise CheckFailed(f"Elasticsearch answers with an error: {redact(str(error))[:400]}") from error


@contextlib.contextmanager
def opened(
    kube: Kube, *, user: str = "elastic", password: Secret | None = None, timeout: float = 60.0
) -> Iterator[Store]:
    """Open the lab's Elasticsearch over TLS, on a free loopback port of this host, while the block runs.

    Args:
        kube: the cluster.
        user: the user to log in as.
        password: use this instead of the one in the Secret.
        timeout: deadline for its first answer, in seconds.

    Raises:
        CheckFailed: there is no Elasticsearch, or it refuses the password.
        WaitTimeout: it does not answer; the error says why.
    """
    import elasticsearch

    known = credentials.access(kube)
    given = known.passwords[user] if password is None else password
    context = ssl.create_default_context(cadata=known.certificate)
    with contextlib.ExitStack() as stack:

        def connected() -> elasticsearch.Elasticsearch | None:
            attempt = contextlib.ExitStack()
            try:
                port = attempt.enter_context(kube.port_forward(here().logging, TARGET, PORT))
                client = elasticsearch.Elasticsearch(
                    f"https://127.0.0.1:{port}",
                    basic_auth=(user, given.reveal()),
                    ssl_context=context,
                    request_timeout=30,
                    max_retries=0,
                )
                attempt.callback(client.close)
                client.cluster.health()
            except BaseException:
                attempt.close()
                raise
            stack.push(attempt)
            return client

        try:
            client = until(
                connected,
                what="Elasticsearch to answer",
                timeout=timeout,
                every=0.5,
                cause=lambda: kube.explain(here().logging, "app=elasticsearch"),
                tolerate=(elasticsearch.TransportError, WaitTimeout),
            )
        except elasticsearch.AuthenticationException as error:
            raise CheckFailed(f"Elasticsearch refuses {user}: wrong password") from error
        except elasticsearch.ApiError as error:
            raise CheckFailed(f"Elasticsearch refuses {user}: {redact(str(error))[:300]}") from error
        yield Store(client)
