"""A customer of the bookshop: asks for books and places orders, again and again until it has an answer."""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import pause

PATIENCE = 150.0
"""How many seconds a customer tries to place one order; a database needs 10 to 40 s to start again."""


@dataclass(frozen=True)
class Placed:
    """An order that the shop has confirmed: its id, the id of the trace that the customer began, and the shop's answer."""

    order: str
    trace: str
    body: dict[str, Any]


@contextlib.contextmanager
def customer(url: str) -> Iterator[httpx.Client]:
    """A client of the shop while the block runs; it uses no proxy."""
    with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
        yield client


def place(
    client: httpx.Client, name: str, *, book: str = "hamlet", quantity: int = 1, patience: float = PATIENCE
) -> Placed:
    """Place an order under an id of the customer's own, and try again until the shop confirms it: it is placed once.

    Raises:
        CheckFailed: the shop refuses it, or does not confirm it in time; the message has what was seen last.
    """
    order, trace, seen = str(uuid.uuid4()), secrets.token_hex(16), ""
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01", "x-request-id": str(uuid.uuid4())}
    draft = {"customer": name, "book": book, "quantity": quantity}
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            answer = client.put(f"/orders/{order}", json=draft, headers=headers)
        except httpx.TransportError as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if answer.is_success:
                return Placed(order, trace, answer.json())
            seen = f"{answer.status_code} {answer.text.strip()[:200]}"
            if answer.status_code < 500:
                raise CheckFailed(f"the shop refuses an order: {seen}")
        pause(0.2)
    raise CheckFailed(f"the shop did not confirm order {order} within {patience:.0f} s; last seen: {seen}")


def book(client: httpx.Client, name: str = "hamlet") -> tuple[dict[str, Any], str, float]:
    """A book, how the shop came by it (`hit`, `miss` or `away`), and the seconds that the answer took.

    Raises:
        CheckFailed: the shop answers with another status than 200.
    """
    start = time.monotonic()
    answer = client.get(f"/books/{name}")
    if answer.status_code != 200:
        raise CheckFailed(f"the shop answers {answer.status_code} for the book {name}: {answer.text.strip()[:200]}")
    return answer.json(), answer.headers.get("X-Cache", ""), time.monotonic() - start
