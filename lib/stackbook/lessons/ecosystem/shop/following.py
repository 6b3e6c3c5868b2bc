"""One order, followed by its id: what each part of the bookshop knows about it, and with which trace."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed
from stackbook.lessons.ecosystem.shop import deploy, topic
from stackbook.lessons.ecosystem.shop.customer import Placed
from stackbook.lessons.ecosystem.shop.passwords import NAMESPACE

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Stop:
    """A place that an order passes.

    Attributes:
        where: the place.
        how: how the order came there.
        seen: what is there of it; empty if there is nothing.
        trace: the id of the trace that is noted there; empty if there is none.
    """

    where: str
    how: str
    seen: str
    trace: str

    def row(self) -> dict[str, str]:
        """The stop in a row of a table."""
        return {"where": self.where, "how it came there": self.how, "what is there": self.seen, "trace": self.trace}


def follow(kube: Kube, bootstrap: str, order: str) -> list[Stop]:
    """Everything that is known about an order, in the order of its way. Its events must have been handled."""
    rows = deploy.query(kube, f"SELECT quantity, book, trace_id FROM orders.orders WHERE id = '{_id(order)}'")
    waiting = deploy.query(kube, f"SELECT headers, published FROM orders.outbox WHERE order_id = '{order}'")
    mails = deploy.query(kube, f"SELECT subject, trace_id FROM mail.mails WHERE order_id = '{order}'")
    records = [record for record in topic.records(bootstrap) if record.key == order]
    return [
        _from_log(
            kube, "orders", "HTTP", lambda line: line.get("path") == f"/orders/{order}", "{method}, status {status}"
        ),
        _from_log(kube, "stock", "gRPC", lambda line: line.get("order") == order, "{quantity} of {book} reserved"),
        _stop("MariaDB: orders", "SQL", rows, lambda row: (f"{row[0]} of {row[1]}", row[2])),
        _stop("MariaDB: outbox", "the same transaction", waiting, _published),
        _stop("Kafka", "the relay", records, lambda r: ("a record with its id as the key", _trace(_sent(r)))),
        _stop("MariaDB: mail", "a consumer of the group mail", mails, lambda row: (row[0], row[1])),
        _from_log(kube, "counter", "a consumer of the group counter", lambda line: line.get("order") == order, "{msg}"),
    ]


def demand_one_trace(stops: list[Stop], placed: Placed) -> list[str]:
    """Check that an order came to each place, with the trace that its customer began; returns the claims.

    Raises:
        CheckFailed: it is missing at a place, or is there with another trace or with none.
    """
    for stop in stops:
        if not stop.seen:
            raise CheckFailed(f"{stop.where} does not know the order {placed.order}")
        if stop.trace != placed.trace:
            raise CheckFailed(f"{stop.where} has the trace {stop.trace or '(none)'} for the order, not {placed.trace}")
    return [f"the order is here, with its customer's trace: {stop.where}" for stop in stops]


def _id(order: str) -> str:
    if not re.fullmatch(r"[0-9a-f-]{36}", order):
        raise CheckFailed(f"{order!r} is not the id of an order")
    return order


def _stop(where: str, how: str, found: list[Any], read: Any) -> Stop:
    """A stop at which exactly one thing of the order has to be."""
    if len(found) != 1:
        return Stop(where, how, f"{len(found)} times" if found else "", "")
    seen, trace = read(found[0])
    return Stop(where, how, seen, trace)


def _published(row: list[str]) -> tuple[str, str]:
    return ("it waits" if row[1] == "NULL" else "it was sent"), _trace(json.loads(row[0]).get("traceparent", ""))


def _sent(record: topic.Record) -> str:
    return record.headers.get("traceparent", "")


def _trace(traceparent: str) -> str:
    """The trace's id in a header `traceparent`; empty if there is none.

    >>> _trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), _trace("")
    ('0af7651916cd43dd8448eb211c80319c', '')
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else ""


def _from_log(kube: Kube, app: str, how: str, mine: Any, words: str) -> Stop:
    """What a program's pods have logged of the order."""
    answer = kube.kubectl("logs", "-n", NAMESPACE, "-l", f"app={app}", "-c", app, "--tail=-1", "--since=10m")
    lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    found = [line for line in lines if mine(line)]
    where = f"the log of {app}"
    return (
        Stop(where, how, words.format(**found[-1]), str(found[-1].get("trace", "")))
        if found
        else Stop(where, how, "", "")
    )
