"""The expected form of a trace, as a tree of hops, and how an actual trace differs from it.

A hop is one call from a service to another, seen by two proxies: a client span in the caller's, and below it a server
span in the callee's.

>>> [line["span"] for line in outline_of(page("reviews"))][:3]
['load → productpage', '  productpage', '    productpage → details']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stackbook.config.namespaces import here

Row = Mapping[Any, Any]
TOLERANCE = 0.05
"""Seconds by which a child may extend beyond its parent: on a busy machine, two proxies finish a request at different moments."""


@dataclass(frozen=True)
class Hop:
    """A call, and the calls that the callee made for it. `reached` is false if the caller's proxy answered itself."""

    caller: str
    callee: str
    calls: tuple[Hop, ...] = ()
    status: int = 200
    flags: str = "-"
    reached: bool = True
    server_status: int = 0  # if it differs from the client's

    @property
    def operation(self) -> str:
        """The name of both spans: Istio names them by the route."""
        return f"{here().host(self.callee)}:9080/*"


def hop(
    caller: str,
    callee: str,
    *calls: Hop,
    status: int = 200,
    flags: str = "-",
    reached: bool = True,
) -> Hop:
    """A call between services by name, such as `hop("reviews", "ratings")`."""
    return Hop(caller, callee, calls, status, flags, reached)


def page(*beyond: str, status: int = 200) -> Hop:
    """The calls for the product page, starting with the pod `load`; with "reviews", that service calls ratings, too."""
    ratings = (hop("reviews", "ratings"),) if "reviews" in beyond else ()
    details, reviews = hop("productpage", "details"), hop("productpage", "reviews", *ratings)
    return hop("load", "productpage", details, reviews, status=status)


@dataclass(frozen=True)
class _Wanted:
    """A span that the trace must contain."""

    service: str
    operation: str
    kind: str
    status: int
    flags: str
    below: tuple[_Wanted, ...]

    def __str__(self) -> str:
        return f"{self.service} {self.kind} {self.operation.partition('.')[0]}"


def _wanted(call: Hop) -> _Wanted:
    inner = tuple(_wanted(c) for c in call.calls)
    server = _Wanted(
        f"{call.callee}.{here().workloads}", call.operation, "server", call.server_status or call.status, "-", inner
    )
    below = (server,) if call.reached else ()
    return _Wanted(f"{call.caller}.{here().workloads}", call.operation, "client", call.status, call.flags, below)


def _size(wanted: _Wanted) -> int:
    return 1 + sum(_size(child) for child in wanted.below)


def problems(frame: pd.DataFrame, call: Hop, *, parent_id: str = "", tolerance: float = TOLERANCE) -> list[str]:
    """What is wrong with a trace: spans that are missing, superfluous, misplaced, or extend beyond their parents.

    Args:
        frame: the spans of one trace.
        call: the first call.
        parent_id: the parent of the first span: the id that the sender chose.
        tolerance: see `misnested`.
    """
    found = []
    if frame["trace_id"].nunique() > 1:
        found.append(f"the spans belong to {frame['trace_id'].nunique()} traces, expected 1")
    wanted = _wanted(call)
    rows = frame.to_dict("records")
    taken: set[str] = set()
    found += _compare([wanted], parent_id, rows, taken)
    for row in rows:
        if row["span_id"] not in taken:
            found.append(f"a superfluous or misplaced span: {_name(row)}, below {row['parent_id'] or 'nothing'}")
    if len(rows) != _size(wanted):
        found.append(f"{len(rows)} spans, expected {_size(wanted)}")
    return found + misnested(frame, tolerance=tolerance)


def _compare(wanted: list[_Wanted], parent: str, rows: Sequence[Row], taken: set[str]) -> list[str]:
    """Find each expected span among the children of a parent, and compare status and flags."""
    found = []
    for want in wanted:
        fits = [
            row
            for row in rows
            if row["parent_id"] == parent
            and row["span_id"] not in taken
            and (row["service"], row["operation"], row["kind"]) == (want.service, want.operation, want.kind)
        ]
        if not fits:
            found.append(f"no span {want} below {parent or 'nothing'}")
            continue
        row = fits[0]
        taken.add(str(row["span_id"]))
        if (row["status"], row["flags"]) != (want.status, want.flags):
            found.append(f"{want}: status {row['status']}, flags {row['flags']}; expected {want.status}, {want.flags}")
        if row["error"] != (want.status >= 500):
            found.append(f"{want}: the error mark is {row['error']} with status {want.status}")
        found += _compare(list(want.below), str(row["span_id"]), rows, taken)
    return found


def _name(row: Row) -> str:
    return f"{row['service']} {row['kind']} {str(row['operation']).partition('.')[0]}"


def misnested(frame: pd.DataFrame, *, tolerance: float = TOLERANCE) -> list[str]:
    """Spans that start before their parent or end after it by more than `tolerance` seconds, one line each."""
    by_id = {(row["trace_id"], row["span_id"]): row for row in frame.to_dict("records")}
    found = []
    for (trace, _), row in by_id.items():
        parent = by_id.get((trace, row["parent_id"]))
        if parent is None:
            continue
        early = parent["start"] - row["start"]
        late = row["start"] + row["seconds"] - parent["start"] - parent["seconds"]
        if max(early, late) > tolerance:
            found.append(f"{_name(row)} extends beyond {_name(parent)} by {max(early, late):.3f} s")
    return found


def outline_of(call: Hop) -> list[dict[str, object]]:
    """An expected trace as rows, indented by depth."""
    return [
        {"span": f"{'  ' * depth}{_label(want)}", "kind": want.kind, "status": want.status}
        for want, depth in _walk_wanted(_wanted(call), 0)
    ]


def _label(want: _Wanted) -> str:
    service, target = want.service.partition(".")[0], want.operation.partition(".")[0]
    return service if want.kind == "server" else f"{service} → {target}"


def _walk_wanted(want: _Wanted, depth: int) -> Iterator[tuple[_Wanted, int]]:
    yield want, depth
    for child in want.below:
        yield from _walk_wanted(child, depth + 1)


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """The spans in tree order, each below its parent, with a column `depth`; roots are in the order of their starts."""
    known = set(frame["span_id"])
    rows = []

    def walk(parents: pd.DataFrame, depth: int) -> None:
        for row in parents.sort_values("start").to_dict("records"):
            rows.append({**row, "depth": depth})
            walk(frame[(frame["parent_id"] == row["span_id"]) & (frame["trace_id"] == row["trace_id"])], depth + 1)

    walk(frame[~frame["parent_id"].isin(known)], 0)
    return pd.DataFrame(rows, columns=[*frame.columns, "depth"])


def outline(frame: pd.DataFrame) -> list[dict[str, object]]:
    """A trace as rows, without what differs between runs: the spans indented by depth, kind, status, flags."""
    return [
        {
            "span": "  " * row["depth"] + (row["app"] if row["kind"] == "server" else f"{row['app']} → {_target(row)}"),
            "kind": row["kind"],
            "status": row["status"],
            "flags": row["flags"],
        }
        for row in ordered(frame).to_dict("records")
    ]


def _target(row: Row) -> str:
    return str(row["operation"]).partition(".")[0]


def edges(frame: pd.DataFrame) -> pd.DataFrame:
    """Who calls whom: one row for each pair of services in a parent and child span, with calls, errors and median time.

    Columns: caller, callee, calls, errors, milliseconds (the callee's median).
    """
    parents = frame[["trace_id", "span_id", "service"]].rename(columns={"span_id": "parent_id", "service": "caller"})
    joined = frame.merge(parents, on=["trace_id", "parent_id"]).rename(columns={"service": "callee"})
    between = joined[joined["caller"] != joined["callee"]]
    grouped = between.groupby(["caller", "callee"], sort=True)
    return grouped.agg(
        calls=("span_id", "size"), errors=("error", "sum"), milliseconds=("seconds", lambda s: 1000 * s.median())
    ).reset_index()
