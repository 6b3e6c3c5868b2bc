"""Requests that the proxies counted, compared with those that a client sent: the numbers must be equal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pandas as pd

from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.deploy import wait_scraped
from stackbook.observability.metrics.dialects import Vocabulary
from stackbook.traffic.request_keys import KEYS, count


def service_counts(
    prometheus: Prometheus, words: Vocabulary, *, at: float | None = None, newer: float | None = None
) -> pd.DataFrame:
    """What the services' proxies have counted, each since its start: pod, service, version, status, count.

    Args:
        prometheus, words: the server, and the metrics' names.
        at: Unix time; now when None.
        newer: ignore what was scraped before this Unix time. After a restart, Prometheus reports a counter's old value for
                5 min, even if the counter no longer exists.
    """
    found = words.plain(prometheus.query(words.served, at=at, newer=newer))
    if found.empty:
        return pd.DataFrame(columns=["pod", *KEYS, "count"])
    return found.assign(count=found["value"].astype(int))[["pod", *KEYS, "count"]].reset_index(drop=True)


def advanced(before: pd.DataFrame, after: pd.DataFrame, *, services: Sequence[str] = ()) -> pd.DataFrame:
    """By how much the counters rose from one `service_counts` to another: service, version, status, count.

    A counter that is lower than before belongs to a proxy that restarted and counts from 0.
    """
    key = ["pod", *KEYS]
    joined = after.merge(before, on=key, how="left", suffixes=("", "_before")).fillna({"count_before": 0})
    rise = joined["count"] - joined["count_before"]
    joined["count"] = rise.where(rise >= 0, joined["count"]).astype(int)
    found = joined[joined["count"] > 0]
    if services:
        found = found[found["service"].isin(list(services))]
    sums = found.groupby(KEYS)["count"].sum().reset_index()
    return sums.sort_values(KEYS, ignore_index=True)


def client_counts(frame: pd.DataFrame, service: str, *, version: str = "") -> pd.DataFrame:
    """Count a client's table of requests (see `load_client.send`) in the same way; `version` fills in missing versions."""
    table = frame.assign(service=service, version=frame["version"].where(frame["version"] != "", version))
    return count(table).sort_values(KEYS, ignore_index=True)


def agree(client: pd.DataFrame, counted: pd.DataFrame) -> list[str]:
    """Where two counts differ, one line each; empty if they are equal."""
    both = client.merge(counted, on=KEYS, how="outer", suffixes=("_client", "_counted")).fillna(0)
    wrong = both[both["count_client"] != both["count_counted"]]
    return [
        f"{row['service']} {row['version']} {row['status']}: the client counted {row['count_client']:.0f}, "
        f"the proxies {row['count_counted']:.0f}"
        for row in wrong.to_dict("records")
    ]


def around(
    prometheus: Prometheus, words: Vocabulary, send: Callable[[], pd.DataFrame], *, services: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Send requests, and return by how much the services' counters rose meanwhile.

    Prometheus scrapes the proxies once before and once after, even if the sending is short.

    Returns:
        The rise of the counters (see `advanced`) and what `send` returned. `attrs["at"]` is the Unix time of its end, and
        `attrs["seconds"]` a time before it that contains, for each proxy, a scrape before and one after the sending; in that
        time this process sent nothing else.

    Raises:
        WaitTimeout: Prometheus did not scrape a proxy again.
    """
    began = time.time()
    wait_scraped(prometheus, after=began)
    before = service_counts(prometheus, words, newer=began)
    frame = send()
    sent = time.time()
    wait_scraped(prometheus, after=sent)
    rise = advanced(before, service_counts(prometheus, words, newer=sent), services=services)
    rise.attrs["at"] = time.time()
    rise.attrs["seconds"] = rise.attrs["at"] - began
    return rise, frame
