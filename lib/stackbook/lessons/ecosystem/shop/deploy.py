"""Deploying the bookshop, the way to it from this host, its database, and killing or changing a part of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx

from stackbook.cluster import addresses, crash, manifests, own_namespaces, waits
from stackbook.cluster.problems import pod_problem
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.lessons.ecosystem.shop import passwords
from stackbook.lessons.ecosystem.shop.passwords import NAMESPACE
from stackbook.observability.logs.deploy import node

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

WORKLOADS = ("statefulset/mariadb", "deployment/redis", "deployment/stock", "deployment/orders", "deployment/mail",
             "deployment/counter")  # fmt: skip
"""In the order in which they become Ready."""
CACHE_SECONDS = 5
"""How long Redis keeps a copy of the catalogue."""
TRIED = {
    "orders": ("OUTBOX", "KAFKA_TRACE_HEADERS", "EVENT_SCHEMA"),
    "mail": ("IDEMPOTENT",),
    "counter": ("IDEMPOTENT",),
}
"""By program, the environment variables that the manifest does not name and `changed` may set for a while."""
_DATABASE = "mariadb-0"


def deploy(lab: Lab, *, cache_seconds: int = CACHE_SECONDS, step: Step | None = None, timeout: float = 180.0) -> int:
    """Deploy the bookshop and wait until each of its pods is Ready; returns how many objects changed. Kafka must be there.

    Args:
        lab: the lab.
        cache_seconds: how long Redis keeps a copy of the catalogue.
        step: the step whose changes this counts as.
        timeout: deadline for each workload, in seconds.

    Raises:
        InputError: there is a namespace `bookshop` that is not the lab's.
        WaitTimeout: a pod is not Ready in time; the error has the likely cause.
    """
    place = node(lab.kube)
    lab.images.load("shop", step=step)
    data = {
        "image_mariadb": lab.images.reference("mariadb"),
        "image_redis": lab.images.reference("redis"),
        "node": place,
    }
    own_namespaces.create(lab.kube, NAMESPACE)
    changed = passwords.ensure(lab.kube)
    changed += lab.kube.apply(manifests.marked("bookshop-data.yaml", **data))
    programs = manifests.render(
        "bookshop.yaml", image_bookshop=lab.images.reference("bookshop"), cache_seconds=str(cache_seconds)
    )
    changed += lab.kube.apply(programs)
    changed += _take_back(lab.kube)
    for workload in WORKLOADS:
        lab.kube.wait_rollout(NAMESPACE, workload, timeout=timeout)
    wait_answers(lab.kube, url(lab.kube))
    return changed


def _take_back(kube: Kube) -> int:
    """Remove what a process that was killed inside `changed` has left: `kubectl apply` keeps variables that the manifest does not name.

    Returns:
        how many programs had such a variable.
    """
    programs = {item["metadata"]["name"]: item for item in kube.json("get", "deployments", "-n", NAMESPACE)["items"]}
    taken = 0
    for program, names in TRIED.items():
        (container, *_) = programs[program]["spec"]["template"]["spec"]["containers"]
        left = {variable["name"] for variable in container.get("env", [])} & set(names)
        if left:
            kube.kubectl("set", "env", f"deployment/{program}", "-n", NAMESPACE, *(f"{name}-" for name in sorted(left)))
            taken += 1
    return taken


def wait_answers(kube: Kube, address: str, *, timeout: float = 30.0) -> None:
    """Wait until the shop answers at its URL: a machine's kube-proxy knows new pods only a moment after they are Ready.

    Raises:
        WaitTimeout: it does not answer in time; the error has the last answer and the likely cause.
    """
    seen = "nothing"

    def answers() -> bool:
        nonlocal seen
        try:
            found = httpx.get(f"{address}/healthz", timeout=5, trust_env=False)
        except httpx.TransportError as error:
            seen = f"{type(error).__name__}: {error}"
            return False
        seen = f"{found.status_code} {found.text.strip()[:100]}"
        return found.is_success

    until(answers, what=f"the shop to answer at {address}", timeout=timeout, every=0.2, last=lambda: seen,
          cause=lambda: kube.explain(NAMESPACE, "app=orders"))  # fmt: skip


def remove(kube: Kube, *, timeout: float = 120.0) -> None:
    """Delete the bookshop; MariaDB's data stay in their folder on the machine, as Kafka's do."""
    own_namespaces.delete(kube, NAMESPACE, timeout=timeout)


def url(kube: Kube) -> str:
    """The URL of the shop at a machine's address, without a path.

    Raises:
        CheckFailed: there is no bookshop.
    """
    services = [s for s in kube.json("get", "services", "-n", NAMESPACE)["items"] if s["metadata"]["name"] == "orders"]
    if not services:
        raise CheckFailed("there is no bookshop on this lab", fix="stackbook run --only 14")
    return f"http://{addresses.of_node(kube.nodes()[0])}:{services[0]['spec']['ports'][0]['nodePort']}"


def query(kube: Kube, statement: str, *, timeout: float = 60.0) -> list[list[str]]:
    """The rows of a SQL statement, each a list of texts; NULL is the text `NULL`.

    Raises:
        CommandFailed: MariaDB refuses the statement, or does not answer.
    """
    argv = ("mariadb", "--defaults-file=/secrets/client.cnf", "--batch", "--skip-column-names", "-e", statement)
    answer = kube.exec(NAMESPACE, _DATABASE, *argv, container="mariadb", timeout=timeout)
    return [line.split("\t") for line in answer.stdout.splitlines()]


def redis(kube: Kube, *command: str) -> str:
    """Redis' answer to a command, as redis-cli prints it."""
    return kube.exec(
        NAMESPACE, "deployment/redis", "redis-cli", "--no-auth-warning", *command, container="redis"
    ).stdout.strip()


def kill(lab: Lab, app: str) -> str:
    """Kill one pod of a workload at once, without a chance to store anything; returns its uid.

    Raises:
        CheckFailed: it has no pod that runs.
    """
    pods = [pod for pod in lab.kube.pods(NAMESPACE, f"app={app}") if not pod_problem(pod)]
    if not pods:
        raise CheckFailed(f"there is no pod of {app} to kill")
    return crash.lose(lab.kube, lab.machines, pods[0])


def wait_replaced(kube: Kube, app: str, uid: str, *, timeout: float = 150.0) -> None:
    """Wait until every pod of a workload is Ready, and none has this uid.

    Raises:
        WaitTimeout: that is not so in time; the error has the likely cause.
    """

    def anew() -> bool:
        pods = kube.pods(NAMESPACE, f"app={app}")
        return bool(pods) and all(p["metadata"]["uid"] != uid and not pod_problem(p) for p in pods)

    until(anew, what=f"another pod of {app} to be Ready", timeout=timeout, every=0.5,
          cause=lambda: kube.explain(NAMESPACE, f"app={app}"))  # fmt: skip


def settled(kube: Kube, *, timeout: float = 120.0) -> None:
    """Wait until what `changed` has changed is complete, and no pod is ending: one that was replaced still works for some seconds.

    Raises:
        WaitTimeout: the new pods are not Ready in time, or the old ones do not end; the error has their names or the likely cause.
    """
    for program in TRIED:
        kube.wait_rollout(NAMESPACE, f"deployment/{program}", timeout=timeout)
    waits.pods_ended(kube, NAMESPACE, "app", what="the shop's old pods to end", timeout=timeout)


def _given(kube: Kube, program: str) -> dict[str, str]:
    """The environment variables of a program that have a plain value."""
    deployment = kube.json("get", f"deployment/{program}", "-n", NAMESPACE)
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable}


@contextlib.contextmanager
def changed(kube: Kube, program: str, *, timeout: float = 120.0, **environment: str) -> Iterator[None]:
    """While the block runs, a program has these environment variables; afterwards it is as before.

    Each is among `TRIED`, or has a value in the manifest: what a killed process leaves, the next `deploy` takes back.

    A complete rollout is not enough: a pod that is told to end still works for some seconds, and the relay of its outbox sends events.
    So the block begins when the old pods have ended. After it, the pods are replaced again, for which `settled` waits.

    Raises:
        ValueError: `deploy` would not take back a variable.
        WaitTimeout: its new pods are not Ready in time, or the old ones do not end.
    """
    workload = f"deployment/{program}"
    given, tried = _given(kube, program), set(TRIED.get(program, ()))
    if unknown := set(environment) - set(given) - tried:
        raise ValueError(f"`deploy` would not take back {', '.join(sorted(unknown))} after a kill: add to TRIED")

    def put(*settings: str) -> None:
        kube.kubectl("set", "env", workload, "-n", NAMESPACE, *settings)

    try:
        put(*(f"{name}={value}" for name, value in environment.items()))
        settled(kube, timeout=timeout)
        yield
    finally:
        put(*(f"{name}-" if name in tried else f"{name}={given[name]}" for name in environment))
