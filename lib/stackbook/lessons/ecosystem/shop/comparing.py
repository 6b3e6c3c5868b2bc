"""The same trials with the bookshop by compose and with the one on Kubernetes, for a table of both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.lessons.ecosystem import broker
from stackbook.lessons.ecosystem.shop import by_compose, deploy
from stackbook.lessons.ecosystem.shop.passwords import NAMESPACE
from stackbook.lessons.ecosystem.shop.under_requests import Requests, requests

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

ORDERS = 20
"""How many orders the copies of `stock` share."""
_SECRET = "/secrets/init.sql"  # a path, no password
_STAT = ("busybox", "stat", "-f", "-c", "%T", _SECRET)


@dataclass(frozen=True)
class Trials:
    """What one shop did.

    Attributes:
        killed: the requests while a copy of `orders` was killed.
        changed: the requests while `orders` was replaced by a new version.
        copies: how many orders each copy of `stock` handled, most first.
        secrets: the type of the file system that MariaDB's passwords are on.
    """

    killed: Requests
    changed: Requests
    copies: list[int]
    secrets: str


def of_compose(shop: by_compose.Shop) -> Trials:
    """The trials with a shop that runs by compose."""
    killed, changed = shop.killed("orders"), shop.changed("orders")
    placed = by_compose.orders(shop.url, ORDERS)
    return Trials(killed, changed, shop.copies(placed), shop.file_system("mariadb", _SECRET))


def of_kubernetes(lab: Lab) -> Trials:
    """The same trials with the lab's bookshop, while nobody else kills parts of it or counts its orders.

    Raises:
        WaitTimeout: the pods are not Ready again in time; the error has the likely cause.
    """
    kube, workload = lab.kube, "deployment/orders"

    def kill() -> None:
        deploy.wait_replaced(kube, "orders", deploy.kill(lab, "orders"))

    def change() -> None:
        kube.kubectl("rollout", "restart", workload, "-n", NAMESPACE)
        kube.wait_rollout(NAMESPACE, workload, timeout=120)

    with lab.turn("the bookshop is changed under requests", of=broker.TURN):
        deploy.settled(kube)
        url = deploy.url(kube)
        killed, changed = (requests(f"{url}/books/hamlet", work) for work in (kill, change))
        placed = by_compose.orders(url, ORDERS)
        names = [pod["metadata"]["name"] for pod in kube.pods(NAMESPACE, "app=stock")]
        logs = kube.kubectl("logs", "-n", NAMESPACE, "-l", "app=stock", "-c", "stock", "--tail=-1", "--since=5m").stdout
        copies = by_compose.counted(logs.splitlines(), set(placed), Counter(dict.fromkeys(names, 0)))
        secrets = kube.exec(NAMESPACE, "mariadb-0", *_STAT, container="mariadb").stdout.strip()
    return Trials(killed, changed, copies, secrets)


def rows(compose: Trials, kubernetes: Trials) -> list[dict[str, str]]:
    """The rows of a table: what was tried, and what both did."""
    both = (compose, kubernetes)
    found = {
        "a copy of orders is killed": [trials.killed.words() for trials in both],
        "orders gets a new version": [trials.changed.words() for trials in both],
        f"{ORDERS} orders, two copies of stock": [" and ".join(map(str, trials.copies)) for trials in both],
        "the passwords are files on": [trials.secrets for trials in both],
    }
    return [{"tried": what, "Docker Compose": here, "Kubernetes": there} for what, (here, there) in found.items()]
