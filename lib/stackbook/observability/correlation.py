"""Compare what metrics, access logs and spans (the witnesses) report about the same requests, with each other and the client.

Counts are compared by service, version and status. If they differ, logs and spans are compared request by request, by id:
this shows which witness missed which request. (A metric has no single requests, only their number.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.core.errors import CheckFailed
from stackbook.traffic.request_keys import KEYS, count, plain_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackbook.lab.lab import Lab
    from stackbook.traffic.testbed import Testbed

NEIGHBOURS: Mapping[str, tuple[str, ...]] = {"reviews": ("ratings",)}
"""The services that a service calls itself."""


def from_client(frame: pd.DataFrame, service: str) -> pd.DataFrame:
    """A client's requests (see `traffic.send`) as lines with service, version, status and request_id."""
    found = frame.assign(service=service, request_id=frame["request_id"].map(plain_id))
    return found[[*KEYS, "request_id"]]


def from_log(entries: pd.DataFrame) -> pd.DataFrame:
    """Access log entries (see `logs.access_log`) of incoming requests, one for each."""
    found = entries[entries["direction"] == "inbound"]
    return found.assign(request_id=found["request_id"].map(plain_id))[[*KEYS, "request_id"]]


def from_spans(spans: pd.DataFrame) -> pd.DataFrame:
    """Server spans (see `tracing.spans`), one for each, by the name of the application."""
    found = spans[spans["kind"] == "server"]
    return found.assign(service=found["app"], request_id=found["request_id"].map(plain_id))[[*KEYS, "request_id"]]


def testimony(witnesses: Mapping[str, pd.DataFrame], *, services: Iterable[str]) -> pd.DataFrame:
    """What each witness counted, one line per service, version and status, and whether `all agree`.

    Args:
        witnesses: for each name, its counts: service, version, status, count.
        services: the services to compare.
    """
    wanted = list(services)
    table: pd.DataFrame | None = None
    for name, counts in witnesses.items():
        mine = counts[counts["service"].isin(wanted)].rename(columns={"count": name})[[*KEYS, name]]
        table = mine if table is None else table.merge(mine, on=KEYS, how="outer")
    if table is None:
        raise CheckFailed("there are no witnesses to compare")
    table = table.fillna(dict.fromkeys(witnesses, 0)).astype(dict.fromkeys(witnesses, int))
    table["all agree"] = table[list(witnesses)].nunique(axis=1) == 1
    return table.sort_values(KEYS, ignore_index=True)


def missed(requests: pd.DataFrame, witnesses: Mapping[str, pd.DataFrame], *, service: str) -> dict[str, list[str]]:
    """For each witness, the ids of requests to a service that it does not have, or has more than once; empty lists if none.

    Args:
        requests: the requests that were sent, with request_id; see `from_client`.
        witnesses: for each name, lines with service and request_id.
        service: the service that received them.
    """
    sent = set(requests["request_id"].map(plain_id))
    found = {}
    for name, lines in witnesses.items():
        mine = lines[lines["service"] == service]["request_id"].map(plain_id)
        times = mine.value_counts()
        found[name] = sorted(sent - set(times.index)) + sorted(set(times[times > 1].index) & sent)
    return found


def prove(table: pd.DataFrame, gone: Mapping[str, list[str]], *, least: int) -> list[str]:
    """Prove that all witnesses agree about enough requests; returns the claim.

    Raises:
        CheckFailed: the error names the witness, its count and the requests that it missed.
    """
    names = [column for column in table if column not in (*KEYS, "all agree")]
    if table.empty or int(table[names[0]].sum()) < least:
        raise CheckFailed(
            f"{0 if table.empty else int(table[names[0]].sum())} requests: at least {least} are needed to compare"
        )
    wrong = table[~table["all agree"]]
    said = [f"{name} missed {len(ids)}: {', '.join(ids[:3])}" for name, ids in gone.items() if ids]
    said += [
        f"{row['service']} {row['version']} {row['status']}: " + ", ".join(f"{name} {row[name]}" for name in names)
        for row in wrong.to_dict("records")
    ]
    if said:
        raise CheckFailed("the witnesses differ: " + "; ".join(said[:6]))
    return [f"{', '.join(map(str, names))} agree about each request"]


def story(request_id: str, entries: pd.DataFrame, spans: pd.DataFrame) -> pd.DataFrame:
    """One request in logs and spans, in order of time: witness, service, what, start (s since the first), seconds, status."""
    plain = plain_id(request_id)
    lines = entries[entries["request_id"].map(plain_id) == plain]
    parts = spans[spans["request_id"].map(plain_id) == plain]
    traces = set(parts["trace_id"])
    parts = spans[spans["trace_id"].isin(traces)]
    rows = [
        {"witness": "access log", "service": row["service"], "what": f"{row['direction']} {row['path']}",
         "start": float(row["time"]), "seconds": float(row["seconds"]), "status": int(row["status"])}
        for row in lines.to_dict("records")
    ] + [
        {"witness": "span", "service": row["app"], "what": f"{row['kind']} {row['operation']}",
         "start": float(row["start"]), "seconds": float(row["seconds"]), "status": int(row["status"])}
        for row in parts.to_dict("records")
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["witness", "service", "what", "start", "seconds", "status"])
    if len(found):
        found["start"] -= found["start"].min()
    return found.sort_values(["start", "seconds"], ascending=[True, False], ignore_index=True)


def draw(table: pd.DataFrame, *, title: str) -> Any:
    """The story of one request over time: a bar for each log line and each span, in ms.

    An access log has whole milliseconds: the thin line beside each of its bars shows where it may really begin and end.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(10, 1.5 + 0.42 * len(table)))
    colours, hatches = {"access log": PALETTE[4], "span": PALETTE[0]}, {"access log": "//", "span": ""}
    words = {"access log": "access log, in whole ms", "span": "span"}
    named: set[str] = set()
    for place, row in enumerate(table.to_dict("records")):
        kind = str(row["witness"])
        axes.barh(place, 1000 * row["seconds"], left=1000 * row["start"], color=colours[kind], hatch=hatches[kind],
                  edgecolor=PALETTE[6], label=None if kind in named else words[kind])  # fmt: skip
        named.add(kind)
        if kind == "access log":
            edges = [1000 * row["start"] - 1, 1000 * (row["start"] + row["seconds"]) + 1]
            axes.plot(edges, [place, place], color=PALETTE[6], linewidth=1)
    axes.set_yticks(range(len(table)), [f"{r['service']}: {r['what']}" for r in table.to_dict("records")])
    axes.invert_yaxis()
    axes.set(title=title, xlabel="ms since its first trace")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


Lines = Mapping[str, pd.DataFrame]


def complete(fetch: Callable[[], Lines], *, wanted: Mapping[str, int], timeout: float = 30.0) -> Lines:
    """Poll the witnesses until each has `wanted` lines about each service, or until the deadline; returns their last answers.

    It also waits for the services that a service calls, because their proxies send spans independently. Reaching the deadline
    is not an error: the comparison finds out what is missing.
    """
    import contextlib

    from stackbook.core.errors import WaitTimeout
    from stackbook.core.waiting import until

    found: Lines = {}

    def have() -> dict[str, dict[str, int]]:
        return {name: {s: int((lines["service"] == s).sum()) for s in wanted} for name, lines in found.items()}

    def enough() -> bool:
        nonlocal found
        found = fetch()
        return all(count >= wanted[s] for counts in have().values() for s, count in counts.items())

    with contextlib.suppress(WaitTimeout):
        until(enough, what="every witness to report everything", timeout=timeout, every=1.0, last=lambda: str(have()))
    return found


@dataclass(frozen=True)
class Evidence:
    """What is known about one batch of requests: the client's own table, and the answer of each witness.

    Attributes:
        asked: the requests that the client sent; see `from_client`.
        counted: the rise of the proxies' counters: service, version, status, count.
        lines: `logs` and `traces`, with service, version, status, request_id.
        entries: the access log's lines in full.
        spans: the spans in full.
    """

    asked: pd.DataFrame
    counted: pd.DataFrame
    lines: Lines
    entries: pd.DataFrame
    spans: pd.DataFrame

    def table(self, service: str) -> pd.DataFrame:
        """What each witness counted about a service, and the client, if it called that service itself."""
        said = {"metrics": self.counted, **{name: count(lines) for name, lines in self.lines.items()}}
        if service in set(self.asked["service"]):
            said = {"client": count(self.asked), **said}
        return testimony(said, services=[service])

    def missed(self) -> dict[str, list[str]]:
        """The requests that a witness does not have, or has more than once; see `missed`."""
        return missed(self.asked, self.lines, service=str(self.asked["service"].iloc[0]))

    def story(self, *, version: str, status: int) -> pd.DataFrame:
        """The first request that got this answer from this version, in logs and spans; see `story`.

        Raises:
            CheckFailed: no request did.
        """
        such = self.asked[(self.asked["version"] == version) & (self.asked["status"] == status)]
        if such.empty:
            raise CheckFailed(f"no request was answered with {status} by {version}")
        return story(str(such["request_id"].iloc[0]), self.entries, self.spans)


def gather(lab: Lab, send: Callable[[Testbed], pd.DataFrame], *, service: str, timeout: float = 90.0) -> Evidence:
    """Send requests to one service, trace each of them, and collect what Prometheus, Elasticsearch and Jaeger have about them.

    Nothing else may use bookinfo until Prometheus has counted them; the wait for logs and spans comes afterwards.

    Args:
        lab: the lab, after chapters 10, 11 and 12.
        send: sends them from the test bed, and returns the client's table (see `traffic.send`).
        service: the service that receives them.
        timeout: deadline for logs and spans, in seconds; what has not arrived by then is missing. A shipper sends earlier
                lines first: 20,000 lines of an earlier load take half a minute.

    Raises:
        CheckFailed, WaitTimeout: a witness does not answer.
    """
    from stackbook.observability import metrics, tracing
    from stackbook.observability.logs import client as elasticsearch
    from stackbook.observability.logs.queries import access_log
    from stackbook.observability.tracing import observation
    from stackbook.traffic import sharing

    words = metrics.vocabulary(lab)
    parts: dict[str, pd.DataFrame] = {}
    began = time.time()
    with elasticsearch.opened(lab.kube) as store, tracing.Jaeger(lab.kube) as jaeger:
        with (
            sharing.used(lab) as testbed,
            lab.turn("the three witnesses", of=metrics.PROMETHEUS),
            metrics.opened(lab.kube) as prometheus,
            tracing.sampled(lab.kube, 100),
        ):
            observation.settled(lab.kube, jaeger, traced=True)
            services = [service, *NEIGHBOURS.get(service, ())]
            counted, frame = metrics.around(prometheus, words, lambda: send(testbed), services=services)
        asked = from_client(frame, service)

        def fetch() -> Lines:
            ids = list(asked["request_id"])
            parts["entries"] = access_log(store, requests=ids)
            parts["spans"] = tracing.spans(jaeger, since=began - 1, request_ids=ids)
            return {"logs": from_log(parts["entries"]), "traces": from_spans(parts["spans"])}

        rises = counted.groupby("service")["count"].sum()
        neighbours = {name: int(rises.get(name, 0)) for name in NEIGHBOURS.get(service, ())}
        lines = complete(fetch, wanted={service: len(asked), **neighbours}, timeout=timeout)
    return Evidence(asked, counted, lines, parts["entries"], parts["spans"])
