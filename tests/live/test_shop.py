"""Chapter 14's bookshop on the live lab: an order can be followed, and each check fails when what it is about is broken."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from stackbook.app import session
from stackbook.core.errors import CheckFailed
from stackbook.lab.lab import Lab
from stackbook.lessons.ecosystem import broker
from stackbook.lessons.ecosystem.shop import accounting, caching, customer, deploy, following, topic

pytestmark = pytest.mark.live
_EXPIRY = deploy.CACHE_SECONDS


@pytest.fixture(scope="module")
def shop(lab: Lab) -> Iterator[Lab]:
    """The lab with Kafka and the bookshop; afterwards it is as it was."""
    found = session.opened("14-ecosystem")
    was_there = bool(found.kube.pods("bookshop", "app=orders"))
    with found.turn("the tests of the bookshop", of=broker.TURN):
        broker.deploy(found)
        deploy.deploy(found, cache_seconds=_EXPIRY)
    yield found
    if not was_there:
        deploy.remove(found.kube)


@pytest.fixture
def client(shop: Lab) -> Iterator[httpx.Client]:
    with customer.customer(deploy.url(shop.kube)) as found:
        yield found


def _name() -> str:
    return f"run-{secrets.token_hex(4)}"


def _followed(shop: Lab, client: httpx.Client) -> tuple[customer.Placed, list[following.Stop]]:
    with accounting.kept(shop, reason="one order is followed") as bootstrap:
        placed = customer.place(client, _name(), quantity=2)
        accounting.settle(shop, bootstrap)
        return placed, following.follow(shop.kube, bootstrap, placed.order)


def test_one_order_is_in_every_place_with_its_customers_trace(shop: Lab, client: httpx.Client) -> None:
    placed, stops = _followed(shop, client)
    following.demand_one_trace(stops, placed)
    assert [stop.where for stop in stops] == [
        "the log of orders", "the log of stock", "MariaDB: orders", "MariaDB: outbox", "Kafka", "MariaDB: mail", "the log of counter",
    ]  # fmt: skip
    again = client.put(
        f"/orders/{placed.order}", json={key: placed.body[key] for key in ("customer", "book", "quantity")}
    )
    assert (again.status_code, again.json()) == (200, placed.body)
    with accounting.kept(shop, reason="a repeated order") as bootstrap:
        assert sum(record.key == placed.order for record in topic.records(bootstrap)) == 1


def test_headers_that_kafka_does_not_get_are_noticed(shop: Lab, client: httpx.Client) -> None:
    with deploy.changed(shop.kube, "orders", KAFKA_TRACE_HEADERS="false"):
        placed, stops = _followed(shop, client)
    with pytest.raises(CheckFailed, match=r"Kafka has the trace \(none\)"):
        following.demand_one_trace(stops, placed)


def test_each_operation_answers_as_it_is_described(client: httpx.Client) -> None:
    """The description is the program's own; an answer is compared with the schema of its operation and status."""
    description = yaml.safe_load(client.get("/openapi.yaml").text)
    draft = {"customer": _name(), "book": "hamlet", "quantity": 1}
    order = customer.place(client, draft["customer"]).order
    seen = {
        ("/books", "get"): client.get("/books"),
        ("/books/{id}", "get"): client.get("/books/hamlet"),
        ("/orders", "post"): client.post("/orders", json=draft),
        ("/orders/{id}", "get"): client.get(f"/orders/{order}"),
        ("/orders/{id}", "put"): client.put(f"/orders/{order}", json={**draft, "quantity": 7}),
    }
    assert set(seen) == {
        (path, verb)
        for path, operations in description["paths"].items()
        for verb in operations
        if verb in ("get", "put", "post")
    }
    wrong = [
        client.get("/books/nothing"), client.post("/orders", json={**draft, "book": "othello"}),
        client.post("/orders", json={}), client.put("/orders/7", json=draft), client.get("/orders/7"),
    ]  # fmt: skip
    assert [answer.status_code for answer in seen.values()] == [200, 200, 201, 200, 409]
    assert [answer.status_code for answer in wrong] == [404, 409, 400, 400, 404]
    operations = [*seen, ("/books/{id}", "get"), ("/orders", "post"), ("/orders", "post"), ("/orders/{id}", "put"),
                  ("/orders/{id}", "get")]  # fmt: skip
    for (path, verb), answer in zip(operations, [*seen.values(), *wrong], strict=True):
        assert _problems(description, path, verb, answer) == [], (path, verb, answer.text)
    order_schema = description["components"]["schemas"]["Order"]
    order_schema["properties"]["total_cents"]["type"] = "string"  # the control: one wrong word is noticed
    assert _problems(description, "/orders", "post", seen["/orders", "post"])


def _problems(description: dict[str, Any], path: str, verb: str, answer: httpx.Response) -> list[str]:
    from jsonschema import Draft202012Validator

    described = description["paths"][path][verb]["responses"].get(str(answer.status_code))
    if described is None:
        return [f"the status {answer.status_code} is not described"]
    if "$ref" in described:
        described = description["components"]["responses"][described["$ref"].rpartition("/")[2]]
    schema = {**described["content"]["application/json"]["schema"], "components": description["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(answer.json())]


def test_the_pages_of_the_description_are_swagger_uis(client: httpx.Client) -> None:
    assert "SwaggerUIBundle" in client.get("/docs/").text
    assert len(client.get("/docs/swagger-ui-bundle.js").content) > 1_000_000
    assert client.get("/docs/swagger-ui.css").headers["content-type"].startswith("text/css")


def test_a_copy_answers_faster_and_an_old_price_is_not_shown_for_long(shop: Lab, client: httpx.Client) -> None:
    times = caching.times(shop.kube, client)
    assert sorted(times["hit"])[5] < sorted(times["miss"])[5]
    assert caching.price_follows(shop.kube, client, expiry=_EXPIRY) <= _EXPIRY + 5


@pytest.mark.more
def test_copies_that_never_expire_are_noticed(shop: Lab, client: httpx.Client) -> None:
    with deploy.changed(shop.kube, "orders", CACHE_SECONDS="0"), pytest.raises(CheckFailed, match="no copy expires"):
        caching.price_follows(shop.kube, client, expiry=_EXPIRY)
    deploy.redis(shop.kube, "flushall")


def test_without_redis_the_shop_sells(shop: Lab, client: httpx.Client) -> None:
    scale = ("scale", "deployment/redis", "-n", "bookshop")
    try:
        shop.kube.kubectl(*scale, "--replicas=0")
        shop.kube.kubectl(
            "wait", "--for=delete", "pod", "-l", "app=redis", "-n", "bookshop", "--timeout=240s", timeout=270
        )
        assert customer.book(client)[1] == "away"
        assert customer.place(client, _name()).body["total_cents"] == 990
    finally:
        shop.kube.kubectl(*scale, "--replicas=1")
        shop.kube.wait_rollout("bookshop", "deployment/redis", timeout=180)


def test_an_event_that_comes_twice_has_one_effect(shop: Lab) -> None:
    name = _name()
    _, account = accounting.trial(shop, name, 20, during=lambda bootstrap: _twice(shop, bootstrap, name))
    account.demand_right()
    assert sum(account.events.values()) == len(account.confirmed) + 1


def test_a_consumer_that_is_not_idempotent_is_noticed(shop: Lab) -> None:
    name = _name()
    with deploy.changed(shop.kube, "mail", IDEMPOTENT="false"):
        _, account = accounting.trial(shop, name, 20, during=lambda bootstrap: _twice(shop, bootstrap, name))
    assert not account.lost and account.twice == {"mails": 1}
    with pytest.raises(CheckFailed, match="twice"):
        account.demand_right()


@pytest.mark.more
def test_what_a_killed_process_changed_is_taken_back_by_the_next(shop: Lab) -> None:
    """A kernel that dies inside `changed` leaves the variable: without this, the shop would lose orders from then on."""
    shop.kube.kubectl("set", "env", "deployment/orders", "-n", "bookshop", "OUTBOX=false")
    assert deploy.deploy(shop, cache_seconds=_EXPIRY) == 1
    found = shop.kube.kubectl("set", "env", "deployment/orders", "-n", "bookshop", "--list").stdout
    assert "DB_NAME=" in found and "OUTBOX" not in found
    assert deploy.deploy(shop, cache_seconds=_EXPIRY) == 0


def _twice(shop: Lab, bootstrap: str, name: str) -> None:
    """One event of this customer is written once more."""
    accounting.settle(shop, bootstrap)
    record = next(r for r in topic.records(bootstrap) if name in r.value.decode())
    topic.send_again(bootstrap, record)


@pytest.mark.more
def test_both_versions_of_the_event_are_handled(shop: Lab) -> None:
    name = _name()
    first, _ = accounting.trial(shop, name, 5)
    with deploy.changed(shop.kube, "orders", EVENT_SCHEMA="1"):
        second, _ = accounting.trial(shop, name, 5)
    subjects = deploy.query(shop.kube, f"SELECT subject FROM mail.mails WHERE customer = '{name}'")
    assert subjects == [["Your order of 1 × hamlet: EUR 9.90"]] * len([*first.orders, *second.orders])
    with accounting.kept(shop, reason="the versions of the events") as bootstrap:
        values = [record.value.decode() for record in topic.records(bootstrap) if name in record.value.decode()]
    assert sorted({'"currency"' in value for value in values}) == [False, True]


@pytest.mark.more
def test_nothing_is_lost_and_nothing_happens_twice_when_each_part_is_killed(shop: Lab) -> None:
    run, account = accounting.trial(shop, _name(), 10_000, kill=accounting.PARTS, between=0.02)
    account.demand_right()
    assert set(run.killed) == set(accounting.PARTS) and len(account.confirmed) >= 10_000


@pytest.mark.more
def test_without_the_outbox_a_killed_broker_loses_orders(shop: Lab) -> None:
    with deploy.changed(shop.kube, "orders", OUTBOX="false"):
        _, account = accounting.trial(shop, _name(), 1000, kill=("broker",))
    assert set(account.lost) == {"topic", "mails", "counter"}, account.row()
    with pytest.raises(CheckFailed, match="orders are lost"):
        account.demand_right()
