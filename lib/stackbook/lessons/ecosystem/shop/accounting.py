"""The account of many orders: what customers were told, and what each part of the shop has, while parts of it are killed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import pause, until
from stackbook.lessons.ecosystem import broker
from stackbook.lessons.ecosystem.shop import customer, deploy, topic
from stackbook.lessons.ecosystem.shop.passwords import NAMESPACE

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

PARTS = ("broker", "mariadb", "mail", "redis")
"""What can be killed: Kafka's broker, the database, a consumer, and the cache."""
_CUSTOMERS = 6
BETWEEN = 0.2
"""Seconds that a customer waits between two orders, so that the load is bounded: together, at most 30 orders a second."""


@dataclass(frozen=True)
class Account:
    """The account of one run.

    Attributes:
        confirmed: the orders that the shop has confirmed to its customers.
        stored: the orders in the database.
        events: how many records the topic has of each order. More than one is allowed: consumers must not mind.
        mails: how many mails each order has.
        counted: how much the counter of orders has grown.
    """

    confirmed: tuple[str, ...]
    stored: tuple[str, ...]
    events: Mapping[str, int]
    mails: Mapping[str, int]
    counted: int

    @property
    def lost(self) -> dict[str, int]:
        """How many confirmed orders are missing, by place."""
        places = {"database": set(self.stored), "topic": set(self.events), "mails": set(self.mails)}
        missing = {place: len(set(self.confirmed) - there) for place, there in places.items()}
        missing["counter"] = max(0, len(self.confirmed) - self.counted)
        return {place: count for place, count in missing.items() if count}

    @property
    def twice(self) -> dict[str, int]:
        """How many orders had their effect more than once, by place."""
        more = {"mails": sum(count > 1 for count in self.mails.values()),
                "counter": max(0, self.counted - len(self.confirmed))}  # fmt: skip
        return {place: count for place, count in more.items() if count}

    def row(self) -> dict[str, int]:
        """The account in numbers."""
        return {
            "confirmed": len(self.confirmed), "stored": len(self.stored), "in the topic": len(self.events),
            "records": sum(self.events.values()), "mails": sum(self.mails.values()), "counted": self.counted,
        }  # fmt: skip

    def verdict(self) -> list[dict[str, object]]:
        """The rows of a table: for each place, how many confirmed orders are missing there, and how many had an effect twice."""
        places = {
            "database": "MariaDB: orders",
            "topic": "Kafka: order-placed",
            "mails": "MariaDB: mail",
            "counter": "MariaDB: counter",
        }
        return [{"place": words, "lost": self.lost.get(place, 0), "handled twice": self.twice.get(place, 0)}
                for place, words in places.items()]  # fmt: skip

    def demand_right(self) -> list[str]:
        """Check that nothing is lost, and nothing happened twice; returns the claims.

        Raises:
            CheckFailed: it says what, how often and where.
        """
        if self.lost:
            raise CheckFailed(f"orders are lost: {self.lost}; {self.row()}")
        if self.twice:
            raise CheckFailed(f"orders had an effect twice: {self.twice}; {self.row()}")
        return ["no confirmed order is lost", "no confirmed order had an effect twice"]


@dataclass
class Run:
    """What happened while orders were placed.

    Attributes:
        orders: the ids of the confirmed orders.
        times: when each was confirmed, in seconds since the start.
        killed: when each part was killed, in seconds since the start.
    """

    orders: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    killed: dict[str, float] = field(default_factory=dict)

    @property
    def longest(self) -> float:
        """The longest time without a confirmed order, in seconds."""
        moments = sorted(self.times)
        return max((after - before for before, after in pairwise(moments)), default=0.0)


def order_through(
    lab: Lab, name: str, count: int, *, kill: Sequence[str] = (), between: float = BETWEEN, timeout: float = 600.0
) -> Run:  # fmt: skip
    """Place orders with several customers at a time, and kill parts of the shop one after the other meanwhile.

    A part is killed when its share of the orders has been confirmed since the last part is back. So each fault hits a whole shop,
    and customers order all the time, until the last part is back: there can be many more orders than `count`.

    Args:
        lab: the lab.
        name: the customers' name, which no other run has.
        count: how many orders at least.
        kill: what is killed, of `PARTS`.
        between: seconds that a customer waits between two orders.
        timeout: deadline for everything, in seconds.

    Raises:
        CheckFailed: an order was refused, or not confirmed in time.
        WaitTimeout: a part did not come back, or the orders did not get on.
    """
    url, run, start, guard = deploy.url(lab.kube), Run(), time.monotonic(), threading.Lock()
    deadline, share = start + timeout, count // (len(kill) + 1)
    stop = threading.Event()

    def work() -> None:
        with customer.customer(url) as client:
            while not stop.is_set():
                placed = customer.place(client, name)
                with guard:
                    run.orders.append(placed.order)
                    run.times.append(time.monotonic() - start)
                stop.wait(between)

    with ThreadPoolExecutor(_CUSTOMERS) as pool:
        busy = [pool.submit(work) for _ in range(_CUSTOMERS)]
        try:
            for part in kill:
                _reach(run, busy, len(run.times) + share, deadline)
                run.killed[part] = time.monotonic() - start
                _kill_and_wait(lab, part)
            _reach(run, busy, max(count, len(run.times) + share), deadline)
        finally:
            stop.set()
    for one in busy:
        one.result()
    return run


def _reach(run: Run, busy: Sequence[Future[None]], wanted: int, deadline: float) -> None:
    """Wait until so many orders are confirmed; the first customer that fails ends the wait."""

    def there() -> bool:
        for one in busy:
            if one.done():
                one.result()
        return len(run.times) >= wanted

    until(there, what=f"{wanted} orders to be confirmed", timeout=max(1.0, deadline - time.monotonic()), every=0.05,
          last=lambda: f"{len(run.times)} are confirmed")  # fmt: skip


def _kill_and_wait(lab: Lab, part: str) -> None:
    if part == "broker":
        gone = broker.kill(lab)
        broker.wait_replaced(lab, gone, f"{broker.address(lab.profile.lab)}:{broker.PORT}")
        return
    deploy.wait_replaced(lab.kube, part, deploy.kill(lab, part))


def settle(lab: Lab, bootstrap: str, *, timeout: float = 150.0) -> None:
    """Wait until the outbox is empty and every event is handled.

    Raises:
        WaitTimeout: something waits; the error says what.
    """

    def waiting() -> int:
        return int(deploy.query(lab.kube, "SELECT COUNT(*) FROM orders.outbox WHERE published IS NULL")[0][0])

    until(lambda: waiting() == 0, what="the outbox to be empty", timeout=timeout, every=0.5,
          last=lambda: f"{waiting()} events wait")  # fmt: skip
    topic.wait_handled(bootstrap, timeout=timeout)


def counted(kube: Kube) -> int:
    """How many orders the counter has counted on all days."""
    return int(deploy.query(kube, "SELECT COALESCE(SUM(orders), 0) FROM counter.days")[0][0])


def account(kube: Kube, bootstrap: str, name: str, run: Run, *, before: int) -> Account:
    """The account of a run, after `settle`.

    Args:
        kube: the cluster.
        bootstrap: the broker's address.
        name: the customers' name in that run.
        run: what was confirmed to them.
        before: what `counted` said before it.
    """
    stored = tuple(row[0] for row in deploy.query(kube, f"SELECT id FROM orders.orders WHERE customer = '{name}'"))
    mailed = deploy.query(kube, f"SELECT order_id FROM mail.mails WHERE customer = '{name}'")
    mine = {*stored, *run.orders}
    events = Counter(record.key for record in topic.records(bootstrap) if record.key in mine)
    mails = Counter(row[0] for row in mailed)
    return Account(tuple(run.orders), stored, events, mails, counted(kube) - before)


@contextmanager
def kept(lab: Lab, *, reason: str) -> Iterator[str]:
    """The turn of those who kill parts of the shop, with a way to the broker; yields its address when no old pod works any more."""
    with lab.turn(reason, of=broker.TURN), broker.reached(lab) as bootstrap:
        deploy.settled(lab.kube)
        yield bootstrap


def trial(
    lab: Lab,
    name: str,
    count: int,
    *,
    kill: Sequence[str] = (),
    between: float = BETWEEN,
    during: Callable[[str], None] = lambda _: None,
) -> tuple[Run, Account]:
    """Place orders, kill parts of the shop meanwhile, and account for everything afterwards.

    Args:
        lab: the lab, with Kafka and the shop.
        name: the customers' name, which no other run has.
        count: how many orders at least.
        kill: what is killed, of `PARTS`.
        between: seconds that a customer waits between two orders.
        during: called with the broker's address when all orders are confirmed.

    Raises:
        CheckFailed: an order was not confirmed.
        WaitTimeout: the shop did not come to rest.
    """
    with kept(lab, reason="orders, and parts of the shop that are killed") as bootstrap:
        before = counted(lab.kube)
        run = order_through(lab, name, count, kill=kill, between=between)
        broker.wait_answers(lab, bootstrap)
        during(bootstrap)
        settle(lab, bootstrap)
        pause(0.5)
        return run, account(lab.kube, bootstrap, name, run, before=before)


def works(lab: Lab, *, timeout: float = 90.0) -> str:
    """Place an order, and wait until its mail is written; returns a sentence.

    Raises:
        CheckFailed: there is no bookshop, or it did not confirm the order.
        WaitTimeout: no mail was written in time.
    """
    url = deploy.url(lab.kube)
    with lab.turn("whether the bookshop works", of=broker.TURN):  # others kill parts of it, and count all orders
        with customer.customer(url) as client:
            placed = customer.place(client, "the lab's check", patience=timeout)
        statement = f"SELECT COUNT(*) FROM mail.mails WHERE order_id = '{placed.order}'"
        until(lambda: deploy.query(lab.kube, statement) == [["1"]], what="the mail of an order", timeout=timeout, every=0.5,
              cause=lambda: lab.kube.explain(NAMESPACE, "app=mail"))  # fmt: skip
    return "an order was confirmed, and its mail was written"
