"""Queries of the logs as DataFrames: access logs, one request's lines, and what Kibana's pages show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from stackbook.core.waiting import until
from stackbook.observability.logs.client import Store
from stackbook.traffic.request_keys import plain_id

COLUMNS = ("time", "service", "version", "pod", "direction", "status", "flags", "path", "request_id", "seconds")
"""The access log's columns; `time` is the Unix time of the request's start, `seconds` how long it took."""
_IDS_AT_ONCE = 5000


def access_log(
    store: Store,
    *,
    requests: Iterable[str] | None = None,
    start: float | None = None,
    end: float | None = None,
    services: Sequence[str] = (),
) -> pd.DataFrame:
    """The sidecars' access log, one line per request and proxy, by time; see `COLUMNS`.

    Args:
        store: Elasticsearch.
        requests: only these request ids, whatever their version digit; None means all.
        start: only lines written at this Unix time or later.
        end: only lines written before this Unix time.
        services: only lines of these services' proxies; empty means all.

    The ids have the version digit 4, with which a client sends them; Envoy writes another digit if it samples the request.
    """
    conditions: list[Mapping[str, Any]] = [{"exists": {"field": "access.status"}}]
    if start is not None or end is not None:
        conditions.append(between(start, end))
    if services:
        conditions.append({"terms": {"service": list(services)}})
    if requests is None:
        found = store.documents(both(conditions))
    else:
        found = []
        wanted = list(dict.fromkeys(plain_id(request) for request in requests))
        for first in range(0, len(wanted), _IDS_AT_ONCE):
            some = {"terms": {"request_id": wanted[first : first + _IDS_AT_ONCE]}}
            found += store.documents(both([*conditions, some]))
    frame = pd.DataFrame([_entry(document) for document in found], columns=list(COLUMNS))
    return frame.sort_values("time", ignore_index=True)


def _entry(document: Mapping[str, Any]) -> tuple[Any, ...]:
    access, owner = document["access"], document["kubernetes"]
    return (
        pd.Timestamp(access["start"]).timestamp(), document.get("service", ""), document.get("version", ""), owner["pod"],
        access["direction"], int(access["status"]), access["flags"] or "-", access["path"],
        document.get("request_id", ""), int(access["milliseconds"]) / 1000,
    )  # fmt: skip


def wait_access(
    store: Store, requests: Sequence[str], *, service: str, direction: str = "inbound", timeout: float = 240.0
) -> pd.DataFrame:
    """Wait until a service's proxy has a line for each request; returns the requests' lines from all proxies.

    A shipper sends earlier lines first: 20,000 lines of an earlier load take half a minute.

    Raises:
        WaitTimeout: the error has the number of missing requests.
    """
    wanted = {plain_id(request) for request in requests}
    found = pd.DataFrame(columns=list(COLUMNS))

    def complete() -> bool:
        nonlocal found
        found = access_log(store, requests=wanted)
        mine = found[(found["service"] == service) & (found["direction"] == direction)]
        return wanted <= set(mine["request_id"])

    def last() -> str:
        mine = found[(found["service"] == service) & (found["direction"] == direction)]
        return f"{len(wanted - set(mine['request_id']))} of {len(wanted)} requests are in no line of {service}"

    until(complete, what=f"each request to be in the access log of {service}", timeout=timeout, every=0.3, last=last)
    return found


def wait_pages(store: Store, requests: Sequence[str], *, timeout: float = 240.0) -> pd.DataFrame:
    """Wait until each service that bookinfo's page calls has a line for each request; returns the lines of all proxies.

    v2 and v3 of `reviews` call `ratings`; v1 does not.

    Raises:
        WaitTimeout: the error names the service and the number of missing requests.
    """
    for service in ("details", "productpage", "reviews"):
        log = wait_access(store, requests, service=service, timeout=timeout)
    starred = log[(log["service"] == "reviews") & (log["direction"] == "inbound") & (log["version"] != "v1")]
    wait_access(store, list(starred["request_id"]), service="ratings", timeout=timeout)
    return access_log(store, requests={plain_id(request) for request in requests})


def discover(
    store: Store, query: Mapping[str, Any], *, columns: Mapping[str, str], count: int = 10, oldest_first: bool = False
) -> pd.DataFrame:
    """What Kibana's page Discover shows: the newest documents that match, with chosen fields as columns.

    Args:
        store: Elasticsearch.
        query: in Elasticsearch's query language.
        columns: title → field, with dots.
        count: the number of documents.
        oldest_first: reverse the order.
    """
    found = store.newest(query, count)
    rows = [{title: _field(document, path) for title, path in columns.items()} for document in found]
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.iloc[::-1].reset_index(drop=True) if oldest_first else frame


def _field(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name, "") if isinstance(value, Mapping) else ""
    return value


def histogram(
    store: Store, query: Mapping[str, Any], *, seconds: int, by: str = "service", most: int = 6
) -> pd.DataFrame:
    """What Kibana draws above Discover: the number of lines in each time span, by the values of a field.

    Args:
        store: Elasticsearch.
        query: in Elasticsearch's query language.
        seconds: width of a bar.
        by: the field whose values divide the bars.
        most: the number of values; the others are left out.

    Columns: time (Unix time of the bar's start), value, lines.
    """
    over: dict[str, Any] = {
        "date_histogram": {"field": "@timestamp", "fixed_interval": f"{seconds}s", "min_doc_count": 1}
    }
    parts = {"terms": {"field": by, "size": most}, "aggs": {"time": over}}
    rows = [
        {"time": bar["key"] / 1000, "value": part["key"], "lines": bar["doc_count"]}
        for part in store.aggregate(query, parts=parts)["parts"]["buckets"]
        for bar in part["time"]["buckets"]
    ]
    return pd.DataFrame(rows, columns=["time", "value", "lines"])


def between(start: float | None, end: float | None) -> dict[str, Any]:
    """A query for lines written in a span of Unix time."""
    limits = {"gte": start, "lt": end}
    found = {
        name: pd.Timestamp(value, unit="s", tz="UTC").isoformat() for name, value in limits.items() if value is not None
    }
    return {"range": {"@timestamp": found}}


def both(conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A query for documents that match all of these, without scores."""
    return {"bool": {"filter": list(conditions)}}


def term(field: str, value: str) -> dict[str, Any]:
    """A query for documents with exactly this value in a field."""
    return {"term": {field: value}}
