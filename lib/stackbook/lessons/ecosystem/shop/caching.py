"""The bookshop's cache: how fast a hit is, and how long an old price is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import pause
from stackbook.lessons.ecosystem.shop import customer, deploy

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

BOOK = "lear"


def times(kube: Kube, client: httpx.Client, *, rounds: int = 11) -> dict[str, list[float]]:
    """How long answers took in seconds, as `hit` and as `miss`; before each miss, the copy is deleted.

    Raises:
        CheckFailed: an answer came about in another way.
    """
    found: dict[str, list[float]] = {"hit": [], "miss": []}
    for _ in range(rounds):
        deploy.redis(kube, "del", f"book:{BOOK}")
        for wanted in ("miss", "hit"):
            _, how, seconds = customer.book(client, BOOK)
            if how != wanted:
                raise CheckFailed(f"the shop's answer was a {how or 'mystery'}, not a {wanted}")
            found[wanted].append(seconds)
    return found


def price_follows(kube: Kube, client: httpx.Client, *, expiry: float, patience: float = 5.0) -> float:
    """Change a price in the database, and wait until the shop shows it; returns how many seconds it showed the old one.

    Args:
        kube: the cluster.
        client: a customer.
        expiry: how long the cache keeps a copy, in seconds.
        patience: how many seconds longer to wait.

    Raises:
        CheckFailed: the first answer after the change was not the copy, or the shop shows the old price for too long.
    """
    deploy.redis(kube, "del", f"book:{BOOK}")
    customer.book(client, BOOK)  # now there is a new copy
    deploy.query(kube, f"UPDATE orders.books SET price_cents = price_cents + 1 WHERE id = '{BOOK}'")
    price = int(deploy.query(kube, f"SELECT price_cents FROM orders.books WHERE id = '{BOOK}'")[0][0])
    start = time.monotonic()
    shown, how, _ = customer.book(client, BOOK)
    if how != "hit" or shown["price_cents"] == price:
        raise CheckFailed(
            f"right after the change the answer was a {how} with {shown['price_cents']} cents, not the copy"
        )
    while shown["price_cents"] != price:
        if time.monotonic() - start > expiry + patience:
            raise CheckFailed(
                f"{expiry + patience:.0f} s after the change the shop still shows the old price: no copy expires"
            )
        pause(0.2)
        shown, how, _ = customer.book(client, BOOK)
    return time.monotonic() - start
