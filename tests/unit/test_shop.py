"""Chapter 14's bookshop: its manifests, its passwords, and the accounts that must notice what is lost, doubled or untraced."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from stackbook.analysis import plot_lint
from stackbook.analysis.display import PALETTE
from stackbook.artifacts.catalogue_loader import load
from stackbook.cluster import manifests
from stackbook.cluster.kube import Kube
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.lessons.ecosystem.shop import accounting, caching, customer, deploy, figures, following, passwords, topic
from stackbook.lessons.ecosystem.shop.accounting import Account, Run
from stackbook.lessons.ecosystem.shop.customer import Placed
from stackbook.lessons.ecosystem.shop.following import Stop

DATA = {"image_mariadb": "lab/mariadb:1", "image_redis": "lab/redis:1", "node": "k8s-node1", "fingerprint": "f"}
PROGRAMS = {"image_bookshop": "lab/bookshop:1", "cache_seconds": "10"}
CHOSEN = {name: f"{name}-password" for name in (*passwords.PROGRAMS, "redis", "operator")}


def documents() -> dict[tuple[str, str], Any]:
    texts = (manifests.render("bookshop-data.yaml", **DATA), manifests.render("bookshop.yaml", **PROGRAMS))
    return {(d["kind"], d["metadata"]["name"]): d for text in texts for d in yaml.safe_load_all(text)}


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for (kind, name), item in documents().items():
        if kind in ("Deployment", "StatefulSet"):
            (container,) = item["spec"]["template"]["spec"]["containers"]
            yield name, item, container


def test_examples() -> None:
    assert doctest.testmod(following).failed == 0


# The manifests


def test_every_workload_is_waited_for() -> None:
    found = {f"{kind.lower()}/{name}" for kind, name in documents() if kind in ("Deployment", "StatefulSet")}
    assert found == set(deploy.WORKLOADS)


def test_everything_is_in_the_labs_own_namespace() -> None:
    found = documents()
    assert found["Namespace", "bookshop"]["metadata"]["labels"]["stackbook.lab/made"] == "true"
    assert {item["metadata"].get("namespace", "bookshop") for item in found.values()} == {"bookshop"}


def test_every_pod_has_probes_limits_and_no_more_rights_than_it_needs() -> None:
    for name, item, container in pods():
        assert {"readinessProbe", "livenessProbe"} <= set(container), name
        assert set(container["resources"]) == {"requests", "limits"}, name
        context = container["securityContext"]
        assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"], name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert item["spec"]["template"]["spec"]["automountServiceAccountToken"] is False, name


def test_what_has_several_pods_keeps_one_when_a_machine_is_drained() -> None:
    found = documents()
    several = {name for name, item, _ in pods() if item["spec"]["replicas"] > 1}
    assert several == {name for kind, name in found if kind == "PodDisruptionBudget"} == {"orders", "stock", "mail"}


def test_ports_have_the_names_that_istio_wants() -> None:
    """https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/"""
    ports = [port for item in documents().values() if item["kind"] == "Service" for port in item["spec"]["ports"]]
    assert sorted(port["name"] for port in ports) == ["grpc", "http", "tcp-mysql", "tcp-redis"]


def test_each_program_sees_its_own_password_alone() -> None:
    for name, _, container in pods():
        keys = {entry["valueFrom"]["secretKeyRef"]["key"] for entry in container.get("env", []) if "valueFrom" in entry}
        assert keys == ({"redis"} if name == "redis" else {name, "redis"} if name == "orders" else {name} - {"mariadb"})


def test_every_key_that_a_pod_names_is_in_the_secret() -> None:
    contents = passwords.contents(CHOSEN)
    named = set()
    for _, item, container in pods():
        named |= {
            entry["valueFrom"]["secretKeyRef"]["key"] for entry in container.get("env", []) if "valueFrom" in entry
        }
        for volume in item["spec"]["template"]["spec"].get("volumes", []):
            named |= {entry["key"] for entry in volume.get("secret", {}).get("items", [])}
    assert named == set(contents)


def test_a_changed_setting_is_a_changed_fingerprint() -> None:
    def mark(**more: str) -> str:
        text = manifests.marked(
            "bookshop-data.yaml", **{k: v for k, v in {**DATA, **more}.items() if k != "fingerprint"}
        )
        (found,) = re.findall(r'stackbook.lab/config: "([0-9a-f]{16})"', text)
        return str(found)

    assert mark() == mark() != mark(node="k8s-node2")


def test_a_database_whose_making_was_interrupted_is_made_again_and_a_whole_one_is_kept(tmp_path: Path) -> None:
    """The init container's command in a shell, with a stand-in for MariaDB's program: the first making ends after its first table."""
    pod = documents()["StatefulSet", "mariadb"]["spec"]["template"]["spec"]
    (tables,) = (one for one in pod["initContainers"] if one["name"] == "tables")
    data, programs = tmp_path / "data", tmp_path / "bin"
    data.mkdir()
    programs.mkdir()
    make = f"""#!/bin/sh
    mkdir -p {data}/.new/mysql {data}/.new/sys; echo a > {data}/.new/ibdata1
    test -e {tmp_path}/interrupted || {{ touch {tmp_path}/interrupted; exit 1; }}
    touch {data}/.new/mysql/whole {data}/.new/sys/view"""
    (programs / "mariadb-install-db").write_text(make)
    (programs / "mariadb-install-db").chmod(0o755)
    command = [*tables["command"][:-1], tables["command"][-1].replace("/data", str(data))]
    environment = {"PATH": f"{programs}:{os.defpath}"}

    def status() -> int:
        return subprocess.run(command, env=environment, timeout=20, check=False).returncode

    assert status() == 1 and not (data / "mysql").exists()
    # As if it had been stopped while it moved the files.
    (data / "sys").mkdir()
    (data / "sys" / "half").touch()
    assert status() == 0
    whole = {"ibdata1", "mysql", "mysql/whole", "sys", "sys/view"}
    assert {str(path.relative_to(data)) for path in data.rglob("*")} == whole
    (data / "orders").mkdir()
    assert status() == 0
    assert {str(path.relative_to(data)) for path in data.rglob("*")} == {*whole, "orders"}


def test_no_password_is_in_a_manifest() -> None:
    text = str(documents())
    assert "password" not in text.lower().replace("db_password", "").replace("redis_password", "")
    assert ("Secret", "bookshop") not in documents()


def test_the_groups_are_those_that_the_lag_is_asked_of() -> None:
    named = {
        entry["value"]
        for _, _, container in pods()
        for entry in container.get("env", [])
        if entry["name"] == "KAFKA_GROUP"
    }
    assert named == {topic.opened("127.0.0.1:1").group(name) for name in topic.GROUPS}


def test_the_images_are_the_shops_bundle() -> None:
    catalogue = load()
    assert set(catalogue.bundle("shop")) == {"mariadb", "redis", "bookshop"}
    programs = {path for _, path in catalogue.image("bookshop").files}
    assert programs == {container["command"][0] for name, _, container in pods() if name in passwords.PROGRAMS}


# The Secret


def test_each_user_has_one_database() -> None:
    lines = passwords.contents(CHOSEN)["init.sql"].splitlines()
    for program in passwords.PROGRAMS:
        assert f"GRANT ALL ON {program}.* TO '{program}'@'%';" in lines
        assert f"ALTER USER '{program}'@'%' IDENTIFIED BY '{program}-password';" in lines
    assert sum("GRANT ALL" in line for line in lines) == len(passwords.PROGRAMS)
    assert all(line.endswith(";") for line in lines)


class Secrets:
    """A cluster that has the Secret, or takes it."""

    def __init__(self, there: bool) -> None:
        self.there, self.created = there, list[Any]()

    def kubectl(self, *args: str, stdin: Any = None, secret: bool = False, **_: Any) -> Any:
        if args[0] == "create":
            assert secret
            self.created.append(stdin)
        return SimpleNamespace(ok=self.there)


def test_passwords_are_chosen_once_and_shown_nowhere() -> None:
    assert passwords.ensure(Secrets(True)) == 0  # type: ignore[arg-type]
    first, second = Secrets(False), Secrets(False)
    assert passwords.ensure(first) == passwords.ensure(second) == 1  # type: ignore[arg-type]
    assert first.created[0].reveal() != second.created[0].reveal()
    assert "init.sql" not in str(first.created[0])


# Accounts

IDS = ("a", "b", "c")
RIGHT: dict[str, Any] = {
    "confirmed": IDS, "stored": IDS, "events": dict.fromkeys(IDS, 1), "mails": dict.fromkeys(IDS, 1), "counted": 3,
}  # fmt: skip


def test_a_right_account() -> None:
    Account(**RIGHT).demand_right()
    Account(**{**RIGHT, "events": {"a": 2, "b": 1, "c": 1}}).demand_right()  # consumers do not mind


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stored": ("a", "b")}, r"lost: {'database': 1}"),
        ({"events": {"a": 1}, "mails": {"a": 1}, "counted": 1}, r"lost: {'topic': 2, 'mails': 2, 'counter': 2}"),
        ({"mails": {"a": 2, "b": 1, "c": 1}}, r"twice: {'mails': 1}"),
        ({"counted": 5}, r"twice: {'counter': 2}"),
    ],
)
def test_what_is_lost_or_doubled_is_noticed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        Account(**{**RIGHT, **change}).demand_right()


def test_the_longest_pause_of_a_run() -> None:
    assert Run(times=[1.0, 9.0, 2.0, 3.5]).longest == 5.5
    assert Run().longest == 0.0


def test_the_plot_of_a_run_can_be_read() -> None:
    run = Run(
        times=[0.1 * number for number in range(300)], killed=dict(zip(accounting.PARTS, (5, 11, 17, 23), strict=True))
    )
    assert plot_lint.problems(figures.confirmed(run), PALETTE) == []


# Following

PLACED = Placed("a", "0af7651916cd43dd8448eb211c80319c", {})


def test_a_place_without_the_order_or_with_another_trace_is_noticed() -> None:
    good = Stop("Kafka", "the relay", "partition 0", PLACED.trace)
    following.demand_one_trace([good], PLACED)
    with pytest.raises(CheckFailed, match="Kafka does not know the order"):
        following.demand_one_trace([good, Stop("Kafka", "the relay", "", "")], PLACED)
    with pytest.raises(CheckFailed, match=r"Kafka has the trace \(none\)"):
        following.demand_one_trace([Stop("Kafka", "the relay", "partition 0", "")], PLACED)


def test_a_place_that_has_an_order_twice_has_no_trace_of_it() -> None:
    assert following._stop("mail", "", [["x", "t"], ["x", "t"]], lambda row: (row[0], row[1])).seen == "2 times"


def test_only_an_id_gets_into_a_statement() -> None:
    with pytest.raises(CheckFailed, match="is not the id of an order"):
        following._id("' OR 1=1 --")


# Customers


def shop(*answers: httpx.Response | Exception) -> tuple[httpx.Client, list[httpx.Request]]:
    left, asked = list(answers), list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.Client(base_url="http://shop", transport=httpx.MockTransport(answer)), asked


def test_an_order_is_tried_again_under_its_id() -> None:
    client, asked = shop(httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(201, json={"id": "x"}))
    placed = customer.place(client, "Ada")
    assert len(asked) == 3 and {request.url.path for request in asked} == {f"/orders/{placed.order}"}
    assert {request.headers["traceparent"].split("-")[1] for request in asked} == {placed.trace}


def test_an_order_that_is_refused_or_never_confirmed_is_an_error() -> None:
    client, asked = shop(httpx.Response(409, json={"error": "sold out"}))
    with pytest.raises(CheckFailed, match="refuses an order: 409"):
        customer.place(client, "Ada")
    assert len(asked) == 1
    client, _ = shop(httpx.ConnectError("refused"))
    start = time.monotonic()
    with pytest.raises(CheckFailed, match="last seen: ConnectError: refused"):
        customer.place(client, "Ada", patience=0.3)
    assert time.monotonic() - start < 5


class Prices:
    """A shop whose copies expire, or do not: it answers MariaDB's client, redis-cli and HTTP."""

    def __init__(self, *, expiry: float) -> None:
        self.expiry, self.price, self.copy = expiry, 990, (0.0, 0)

    def client(self) -> httpx.Client:
        def answer(_: httpx.Request) -> httpx.Response:
            until, price = self.copy
            how = "hit" if time.monotonic() < until else "miss"
            if how == "miss":
                price = self.price
                self.copy = (time.monotonic() + self.expiry, price)
            return httpx.Response(200, json={"price_cents": price}, headers={"X-Cache": how})

        return httpx.Client(base_url="http://shop", transport=httpx.MockTransport(answer))

    def exec(self, _space: str, _pod: str, *argv: str, **_: Any) -> Any:
        if argv[0] == "redis-cli":
            self.copy = (0.0, 0)
        if "UPDATE" in argv[-1]:
            self.price += 1
        return SimpleNamespace(stdout=f"{self.price}\n")


def test_a_copy_that_never_expires_is_noticed() -> None:
    right: Any = Prices(expiry=0.3)
    assert 0.1 < caching.price_follows(right, right.client(), expiry=0.3, patience=5) < 5
    wrong: Any = Prices(expiry=1e6)
    with pytest.raises(CheckFailed, match="no copy expires"):
        caching.price_follows(wrong, wrong.client(), expiry=0.3, patience=0.5)
    none: Any = Prices(expiry=0.0)
    with pytest.raises(CheckFailed, match="not the copy"):
        caching.price_follows(none, none.client(), expiry=0.3)


def test_parts_that_can_be_killed_are_parts() -> None:
    assert set(accounting.PARTS) - {"broker"} <= {workload.partition("/")[2] for workload in deploy.WORKLOADS}


def test_without_a_bookshop_the_postcondition_names_the_next_step() -> None:
    from stackbook.app import checks

    kube = SimpleNamespace(json=lambda *_: {"items": []})
    check = next(check for check in checks.of("14-ecosystem") if check.id == "shop")
    with pytest.raises(CheckFailed, match="there is no bookshop on this lab") as caught:
        check.prove(SimpleNamespace(kube=kube))  # type: ignore[arg-type]
    assert caught.value.fix == "stackbook run --only 14"


def test_a_shop_is_waited_for_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    kube: Any = SimpleNamespace(explain=lambda *_: "orders-1: not Ready")
    answers: list[Any] = [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200)]

    def get(_url: str, **_: Any) -> httpx.Response:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(deploy.httpx, "get", get)
    deploy.wait_answers(kube, "http://shop", timeout=5)
    answers[:] = [httpx.ConnectError("refused")]
    with pytest.raises(WaitTimeout, match=r"ConnectError: refused.*orders-1: not Ready"):
        deploy.wait_answers(kube, "http://shop", timeout=0.3)


def deployment(name: str, variables: list[str], value: str = "false") -> dict[str, Any]:
    """A program's Deployment with these environment variables, as the API has it."""
    containers = [{"name": name, "env": [{"name": v, "value": value} for v in variables]}, {"name": "other"}]
    return {"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": containers}}}}


def test_a_changed_program_has_no_old_pods_left() -> None:
    """A pod that is told to end still sends events of the outbox, as it did before the change."""
    looks: list[tuple[str, ...]] = []
    done: list[tuple[str, ...]] = []

    class Fake(Kube):
        """Its answers are the API's; `pods` is the real one, which leaves out pods that are ending."""

        stays = False

        def json(self, *args: str, timeout: float = 60.0) -> Any:
            if args[1] == "deployment/orders":
                return deployment("orders", ["DB_NAME", "CACHE_SECONDS"], value="10")
            looks.append(args)
            old = [{"metadata": {"name": "orders-old", "deletionTimestamp": "2026-11-29T00:00:00Z"}}]
            return {"items": [{"metadata": {"name": "orders-new"}}, *(old if self.stays or len(looks) % 3 else [])]}

        def kubectl(self, *args: str, **_: Any) -> Any:
            done.append(args)
            return SimpleNamespace(ok=True)

    kube = Fake(Path("kubeconfig"))
    with deploy.changed(kube, "orders", OUTBOX="false"):
        assert looks == [("get", "pods", "-n", "bookshop", "-l", "app")] * 3
    settings = [args[-1] for args in done if args[0] == "set"]
    assert settings == ["OUTBOX=false", "OUTBOX-"]
    with deploy.changed(kube, "orders", CACHE_SECONDS="0"):
        assert [args[-1] for args in done if args[0] == "set"][2:] == ["CACHE_SECONDS=0"]
    assert [args[-1] for args in done if args[0] == "set"][3:] == ["CACHE_SECONDS=10"], "the manifest names it"
    with pytest.raises(ValueError, match="would not take back SPEED"), deploy.changed(kube, "orders", SPEED="1"):
        pytest.fail("it was set")
    kube.stays = True
    stays = pytest.raises(WaitTimeout, match="the shop's old pods to end; last seen: orders-old")
    with stays, deploy.changed(kube, "orders", timeout=0.2, OUTBOX="false"):
        pytest.fail("the old pods are still there")


def test_what_a_killed_process_changed_is_taken_back() -> None:
    """`kubectl apply` keeps a variable that the manifest does not name, so another run would go on without the outbox."""
    done: list[tuple[str, ...]] = []
    given = {"orders": ["DB_NAME", "OUTBOX", "KAFKA_TRACE_HEADERS"], "mail": ["DB_NAME"], "counter": [], "redis": []}

    class Fake(Kube):
        def json(self, *args: str, timeout: float = 60.0) -> Any:
            assert args == ("get", "deployments", "-n", "bookshop")
            return {"items": [deployment(name, variables) for name, variables in given.items()]}

        def kubectl(self, *args: str, **_: Any) -> Any:
            done.append(args)
            return SimpleNamespace(ok=True)

    kube = Fake(Path("kubeconfig"))
    assert deploy._take_back(kube) == 1
    assert done == [("set", "env", "deployment/orders", "-n", "bookshop", "KAFKA_TRACE_HEADERS-", "OUTBOX-")]
    given["orders"] = ["DB_NAME"]
    assert deploy._take_back(kube) == 0 and len(done) == 1


def test_each_setting_that_is_tried_is_one_of_the_program() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "lib/shop").rglob("*.go"))
    )
    for names in deploy.TRIED.values():
        for name in names:
            assert re.search(rf's\.\w+\("{name}", ', source)


def test_the_check_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """While parts are killed and all orders are counted, nobody else places one."""
    seen: list[str] = []

    @contextmanager
    def turn(_what: str, *, of: str) -> Iterator[None]:
        seen.append(of)
        yield
        seen.append("given back")

    def place(*_: Any, **__: Any) -> Placed:
        seen.append("placed")
        return PLACED

    monkeypatch.setattr(accounting.deploy, "url", lambda _: "http://shop")
    monkeypatch.setattr(accounting.deploy, "query", lambda *_: [["1"]])
    monkeypatch.setattr(accounting.customer, "place", place)
    accounting.works(SimpleNamespace(kube=None, turn=turn))  # type: ignore[arg-type]
    assert seen == ["kafka", "placed", "given back"]


class Customers:
    """A shop in memory, whose customers may be told to fail: it counts what it was asked while a part is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.killed: list[tuple[str, int]] = []
        self.orders = 0
        monkeypatch.setattr(accounting.deploy, "url", lambda _: "http://shop")
        monkeypatch.setattr(accounting.customer, "place", self.place)
        monkeypatch.setattr(accounting, "_kill_and_wait", self.kill)

    def place(self, _client: httpx.Client, _name: str) -> Placed:
        self.orders += 1
        return Placed(str(self.orders), "", {})

    def kill(self, _lab: Any, part: str) -> None:
        before = self.orders
        time.sleep(0.1)
        self.killed.append((part, self.orders - before))


def test_customers_order_while_each_part_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Customers(monkeypatch)
    lab: Any = SimpleNamespace(kube=None)
    run = accounting.order_through(lab, "x", 50, kill=accounting.PARTS, between=0.005, timeout=30)
    assert [part for part, _ in seen.killed] == list(run.killed) == list(accounting.PARTS)
    assert all(meanwhile > 0 for _, meanwhile in seen.killed)
    assert len(run.orders) >= 50
    marks = [0.0, *run.killed.values()]
    assert all(sum(before <= at < after for at in run.times) >= 10 for before, after in pairwise(marks))


def test_a_trial_begins_when_no_old_pod_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `changed` has taken back is complete only then."""
    done: list[str] = []

    @contextmanager
    def noted(name: str) -> Iterator[str]:
        done.append(name)
        yield name

    monkeypatch.setattr(accounting.broker, "reached", lambda _lab: noted("the broker is reached"))
    monkeypatch.setattr(deploy, "settled", lambda _kube: done.append("settled"))
    lab: Any = SimpleNamespace(turn=lambda _reason, of: noted(f"the turn {of}"), kube=None)
    with accounting.kept(lab, reason="a test"):
        assert done == ["the turn kafka", "the broker is reached", "settled"]
