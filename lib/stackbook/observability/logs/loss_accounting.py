"""Accounting for log lines: which arrived, how often and how soon, and since when lines are missing."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, CommandFailed, WaitTimeout
from stackbook.core.waiting import pause, until
from stackbook.observability.logs.client import Store
from stackbook.observability.logs.deploy import machines, shippers
from stackbook.observability.logs.queries import between, both, term

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.observability.logs.generators import Writers

_LINE = re.compile(r"run (\S+) line (\d+) x+$")
_PULSE = re.compile(r"pulse (\d+)$")
_SHOWN = 5
SENT_BY = 240.0
"""Deadline in seconds for a shipper that has older lines to send first: on a busy machine, those of an earlier load take minutes."""


def arrived(store: Store, writers: Writers) -> pd.DataFrame:
    """The numbered lines that a search finds: node, number, id (of the document), time (Unix time at which it was written)."""
    found = store.documents(lines_of(writers), fields=["message", "node", "@timestamp"])
    rows = []
    for document in found:
        match = _LINE.match(document["message"])
        if match and match[1] == writers.run:
            rows.append((document["node"], int(match[2]), document["_id"], document["@timestamp"]))
    table = pd.DataFrame(rows, columns=["node", "number", "id", "time"])
    written = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.assign(time=(written - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1))


def lines_of(writers: Writers) -> dict[str, Any]:
    """A query for the lines that these pods wrote."""
    pods = [f"lines-{writers.run}-{name}" for name in writers.share]
    return both([{"terms": {"kubernetes.pod": pods}}, {"match": {"message": writers.run}}])


def _seconds(text: str) -> float:
    return float(pd.Timestamp(text).timestamp())


def wait_arrived(store: Store, writers: Writers, *, timeout: float = 240.0, quiet: float = 30.0) -> pd.DataFrame:
    """Wait until a search finds all written lines, or no new line arrives for `quiet` seconds; returns them as `arrived` does.

    Missing lines are not an error here: `problems` reports them. A shipper that sends earlier lines again, as after its start,
    is not quiet: the numbered lines come after those.

    Raises:
        WaitTimeout: the shippers were still sending; the error has the number of lines, and what each shipper has counted.
    """
    seen = [0, time.monotonic()]
    again: dict[str, int] = {}

    def resent() -> dict[str, int]:
        return {node: counted["duplicates"] for node, counted in statistics(writers.kube).items()}

    def ended() -> bool:
        nonlocal again
        count = store.count(lines_of(writers))
        if count != seen[0]:
            seen[:] = [count, time.monotonic()]
        if count >= writers.lines:
            return True
        if time.monotonic() - seen[1] <= quiet:
            return False
        before, again = again, resent()
        if again == before:
            return True
        seen[1] = time.monotonic()
        return False

    until(ended, what="the numbered lines to arrive", timeout=timeout, every=0.5,
          last=lambda: f"{seen[0]} of {writers.lines}; {statistics(writers.kube)}")  # fmt: skip
    return arrived(store, writers)


def problems(found: pd.DataFrame, share: Mapping[str, int]) -> list[str]:
    """What is wrong with the lines that arrived, one line each; empty when each line arrived exactly once.

    >>> table = pd.DataFrame({"node": ["a", "a"], "number": [1, 1], "id": ["x", "y"], "time": [0.0, 0.0]})
    >>> problems(table, {"a": 2})
    ['a: 1 of 2 lines missing: 2', 'a: 1 lines arrived more than once: 1']
    """
    wrong = []
    for node, count in share.items():
        numbers = found[found["node"] == node]["number"]
        missing = sorted(set(range(1, count + 1)) - set(numbers))
        if missing:
            wrong.append(f"{node}: {len(missing)} of {count} lines missing: {_some(missing)}")
        twice = sorted(set(numbers[numbers.duplicated()]))
        if twice:
            wrong.append(f"{node}: {len(twice)} lines arrived more than once: {_some(twice)}")
    if strangers := sorted(set(found["node"]) - set(share)):
        wrong.append(f"lines from machines that wrote none: {', '.join(strangers)}")
    return wrong


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:_SHOWN])
    return shown if len(numbers) <= _SHOWN else f"{shown} … {numbers[-1]}"


def pulses(store: Store, start: float, end: float) -> pd.DataFrame:
    """The lines that each machine writes once a second, for a span of Unix time: node, pod, number, time (Unix time)."""
    found = store.documents(
        both([term("service", "pulse"), between(start, end)]),
        fields=["message", "node", "@timestamp", "kubernetes.pod"],
    )
    rows = []
    for document in found:
        if match := _PULSE.match(document["message"]):
            rows.append(
                (document["node"], document["kubernetes"]["pod"], int(match[1]), _seconds(document["@timestamp"]))
            )
    return pd.DataFrame(rows, columns=["node", "pod", "number", "time"])


def skipped(found: pd.DataFrame) -> list[str]:
    """Pulses that are missing between the first and the last of each pod, one line per pod."""
    wrong = []
    for (node, _), part in found.groupby(["node", "pod"]):
        numbers = set(part["number"])
        missing = sorted(set(range(min(numbers), max(numbers) + 1)) - numbers)
        if missing:
            wrong.append(f"{node}: {len(missing)} pulses missing: {_some(missing)}")
    return wrong


def newest(store: Store) -> dict[str, float]:
    """Node → Unix time at which the newest of its lines that a search finds was written."""
    parts = {"terms": {"field": "node", "size": 1000}, "aggs": {"newest": {"max": {"field": "@timestamp"}}}}
    answer = store.aggregate(term("service", "pulse"), parts=parts)
    return {part["key"]: part["newest"]["value"] / 1000 for part in answer["parts"]["buckets"]}


def counts(store: Store) -> dict[str, int]:
    """Node → how many of its lines a search finds."""
    answer = store.aggregate({"match_all": {}}, parts={"terms": {"field": "node", "size": 1000}})
    return {part["key"]: part["doc_count"] for part in answer["parts"]["buckets"]}


def behind(kube: Kube, store: Store, *, limit: float = 10.0) -> list[dict[str, Any]]:
    """Since when lines are missing, one line per machine.

    Each machine writes a line a second. If the newest is older than `limit` seconds, lines are missing since then.

    Columns: node, shipper (Ready, or why not), missing since (UTC; empty if none are), at (the same as Unix time; 0 if no line ever
    arrived), said (the shipper's last complaint).
    """
    last, now = newest(store), time.time()
    rows = []
    for shipper in shippers(kube):
        node = shipper["node"]
        late = now - last.get(node, 0) > limit
        since = "the beginning" if node not in last else pd.Timestamp(last[node], unit="s").strftime("%H:%M:%S")
        rows.append({"node": node, "shipper": "Ready" if shipper["ready"] else shipper["problem"],
                     "missing since": since if late else "", "at": last.get(node, 0.0),
                     "said": complaint(kube, shipper["pod"]) if late and shipper["pod"] else ""})  # fmt: skip
    return rows


def all_behind(kube: Kube, store: Store, *, limit: float) -> list[dict[str, Any]]:
    """The table of `behind` once every machine's lines are missing and every shipper says why; empty before."""
    rows = behind(kube, store, limit=limit)
    return rows if all(row["missing since"] and row["said"] for row in rows) else []


def complaint(kube: Kube, pod: str) -> str:
    """A shipper's last complaint about Elasticsearch; empty if it has none."""
    lines = kube.kubectl("logs", "-n", here().logging, pod, "--tail=200", check=False).lines
    said = [line for line in lines if "refuses" in line or "suspending ourselfs" in line or "checkConn failed" in line]
    return " ".join(said[-1].split())[:300] if said else ""


def wait_current(kube: Kube, store: Store, *, limit: float = 5.0, after: float = 0.0, timeout: float = SENT_BY) -> None:
    """Wait until each machine's newest line is at most `limit` seconds old, and was written after the Unix time `after`.

    If lines of every machine that is behind have come meanwhile, the wait begins once more, and only once: a shipper reads one
    file after the other, so older lines of a busy machine come first.

    Raises:
        WaitTimeout: the error names the machines that are behind, since when, and what their shippers report.
    """
    nodes = machines(kube)

    def waiting() -> list[str]:
        last, now = newest(store), time.time()
        return [node for node in nodes if last.get(node, 0) < max(now - limit, after)]

    def current() -> bool:
        return not waiting()

    def last() -> str:
        rows = [row for row in behind(kube, store, limit=limit) if row["missing since"]]
        return "; ".join(f"{r['node']}: lines missing since {r['missing since']}, shipper {r['shipper']}" for r in rows)

    def cause() -> str:
        return "; ".join(row["said"] for row in behind(kube, store, limit=limit) if row["said"])

    for once_more in (True, False):
        before = counts(store)
        try:
            until(
                current,
                what="each machine's newest line to be found",
                timeout=timeout,
                every=0.5,
                last=last,
                cause=cause,
            )
            return
        except WaitTimeout:
            now = counts(store)
            if not once_more or any(now.get(node, 0) <= before.get(node, 0) for node in waiting()):
                raise


def wait_whole(kube: Kube, store: Store, since: float, *, timeout: float = SENT_BY) -> list[str]:
    """Wait until all pulses since a Unix time have arrived; returns those missing at the deadline, as `skipped` does.

    First, it waits for pulses written after this call: only a gap between earlier and later pulses can be seen. Lines that
    were refused are sent again after newer ones, so newer lines do not prove that older ones have arrived.

    Raises:
        WaitTimeout: a machine sends nothing at all; see `wait_current`.
    """
    wait_current(kube, store, after=time.time(), timeout=timeout)
    gaps: list[str] = []

    def whole() -> bool:
        gaps[:] = skipped(pulses(store, since, time.time()))
        return not gaps

    with contextlib.suppress(WaitTimeout):
        until(whole, what="all pulses to arrive", timeout=timeout, every=0.5)
    return gaps


def observation(store: Store, *, seconds: float, every: float = 0.1) -> pd.DataFrame:
    """How soon a search finds a line after it was written, measured on the pulses of the next `seconds`.

    Columns: node, pod, number, time (Unix time), latency (seconds until a search found it, with a search every `every` s). The
    frame's attribute `search` is how many seconds the slowest search took.

    Raises:
        CheckFailed: no line was found.
    """
    start = time.time()
    seen: dict[tuple[str, int], float] = {}
    frame, slowest = pulses(store, start, start), 0.0
    while (asked := time.time()) < start + seconds + 5:
        frame = pulses(store, start, start + seconds)
        now = time.time()
        slowest = max(slowest, now - asked)
        for pod, number in zip(frame["pod"], frame["number"], strict=True):
            seen.setdefault((pod, number), now)
        if now > start + seconds and len(frame) and frame["time"].max() > start + seconds - 1.5:
            break
        pause(every)
    if frame.empty:
        raise CheckFailed(
            f"a search found no line of the last {seconds:.0f} s",
            fix=f"check the shippers: kubectl -n {here().logging} get pods",
        )
    found = [seen[pod, number] for pod, number in zip(frame["pod"], frame["number"], strict=True)]
    measured = frame.assign(latency=[max(0.0, at - written) for at, written in zip(found, frame["time"], strict=True)])
    measured.attrs["search"] = slowest
    return measured


def late_by_itself(found: pd.DataFrame) -> float:
    """How many seconds this machine was late without any shipper: a program that writes once a second, and a search.

    On an idle machine that is a few hundredths. On a busy one nothing that happens there is faster, so what is promised for an
    idle machine is promised for that much later, but for 3 s at most: a search that takes longer is not a busy machine.

    Args:
        found: what `observation` has returned.
    """
    steps = (
        found.sort_values("time").groupby("pod")[["time", "number"]].diff().dropna()
    )  # a line that is lost is not a late one
    late = max([0.0, *map(float, steps["time"] - steps["number"])])
    return min(3.0, late + float(found.attrs.get("search", 0.0)))


def statistics(kube: Kube) -> dict[str, dict[str, int]]:
    """What each shipper has counted since its start, by node: accepted, duplicates (refused because of their id), waiting (queued).

    Only rsyslog counts this; for Fluentd the table is empty.

    https://www.rsyslog.com/doc/v8-stable/configuration/modules/omelasticsearch.html, "Statistic Counter"
    """
    counted = {}
    for pod in kube.pods(here().logging, "app=shipper,shipper=rsyslog"):
        try:
            answer = kube.exec(
                here().logging, pod["metadata"]["name"], "tail", "-n", "40", "/var/lib/shipper/stats.json"
            )
        except CommandFailed:
            continue
        latest = {entry["name"]: entry for entry in map(_counter, answer.lines) if entry}
        sent = latest.get("omelasticsearch", {})
        counted[str(pod["spec"]["nodeName"])] = {
            "accepted": int(sent.get("response.success", 0)),
            "duplicates": int(sent.get("response.duplicate", 0)),
            "waiting": sum(int(latest.get(name, {}).get("size", 0)) for name in ("pods", "refused")),
        }
    return counted


def _counter(line: str) -> dict[str, Any]:
    """A line of impstats: the date, a colon, and JSON."""
    _, found, text = line.partition(": {")
    try:
        value = json.loads("{" + text) if found else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) and "name" in value else {}
