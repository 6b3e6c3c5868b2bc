"""Requests counted by the proxies, compared with those that a client has sent: exactly, not about."""

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
    """What the proxies of the services have counted since each started: pod, service, version, status, count.

    Args:
        prometheus, words: where, and how it is asked.
        at: Unix time; now when None.
        newer: what was scraped before this Unix time does not count. Started anew, Prometheus goes on with what it had of a
            counter for 5 min, also where that is no longer there.
    """
    found = words.plain(prometheus.query(words.served, at=at, newer=newer))
    if found.empty:
        return pd.DataFrame(columns=["pod", *KEYS, "count"])
    return found.assign(count=found["value"].astype(int))[["pod", *KEYS, "count"]].reset_index(drop=True)


def advanced(before: pd.DataFrame, after: pd.DataFrame, *, services: Sequence[str] = ()) -> pd.DataFrame:
    """By how much the counters went up from one `service_counts` to another: service, version, status, count.

    A counter that is lower than before belongs to a proxy that was started anew, which counts from 0.
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
    """A client's own table of requests (see `traffic.send`) counted alike; `version` where the table does not name it."""
    table = frame.assign(service=service, version=frame["version"].where(frame["version"] != "", version))
    return count(table).sort_values(KEYS, ignore_index=True)


def agree(client: pd.DataFrame, counted: pd.DataFrame) -> list[str]:
    """Where two counts differ, one line each; empty when they are equal."""
    both = client.merge(counted, on=KEYS, how="outer", suffixes=("_client", "_counted")).fillna(0)
    wrong = both[both["count_client"] != both["count_counted"]]
    return [
        f"{row['service']} {row['version']} {row['status']}: the client has {row['count_client']:.0f}, "
        f"the proxies {row['count_counted']:.0f}"
        for row in wrong.to_dict("records")
    ]


def around(
    prometheus: Prometheus, words: Vocabulary, send: Callable[[], pd.DataFrame], *, services: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Send requests, and say by how much the services' counters went up meanwhile.

    The proxies are scraped once before and once after, however short the sending was.

    Returns:
        The rise of the counters (see `advanced`) and what `send` returned. `attrs["at"]` is the Unix time of its end, and
        `attrs["seconds"]` the time before that in which each proxy was scraped before and after the sending, and nothing
        else was sent by this process.

    Raises:
        WaitTimeout: a proxy was not scraped again.
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
