"""Retention of log lines: a CronJob deletes the indices of old days.

A full Elasticsearch does this itself (index lifecycle management). A job with curl works without that part, and shows the
principle: one index per day, and a whole day is deleted at once.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from stackbook.config.namespaces import here
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.observability.logs.client import INDICES, Store

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def days(kube: Kube) -> int:
    """How many days lines are kept; 0 if nothing deletes them."""
    answer = kube.kubectl("get", "cronjob", "retention", "-n", here().logging, "-o",
                          "jsonpath={.spec.suspend} {.spec.jobTemplate.spec.template.spec.containers[0].env[?(@.name=='DAYS')].value}",
                          check=False)  # fmt: skip
    suspended, _, value = answer.stdout.partition(" ")
    return int(value) if answer.ok and value.isdigit() and suspended != "true" else 0


def index_of(age: int, *, now: datetime | None = None) -> str:
    """The index of a day: `age` 0 is today's."""
    day = (now or datetime.now(timezone.utc)) - timedelta(days=age)
    return f"logstash-{day:%Y.%m.%d}"


def indices(store: Store) -> list[str]:
    """The indices of logs, by name."""
    return sorted(store.client.indices.get(index=INDICES).keys())


def make_old(store: Store, ages: list[int]) -> list[str]:
    """Create an index with one line for each of these ages in days, unless it exists; returns their names."""
    names = [index_of(age) for age in ages]
    for name, age in zip(names, ages, strict=True):
        if name not in indices(store):
            moment = datetime.now(timezone.utc) - timedelta(days=age)
            document = {"@timestamp": moment.isoformat(), "message": f"a line {age} days old"}
            store.client.index(index=name, id="old", document=document, refresh=True)
    return names


def enforce(kube: Kube, *, timeout: float = 60.0) -> list[str]:
    """Run the CronJob's job now, and return what it printed.

    Raises:
        WaitTimeout: it did not succeed; the error has its last lines.
    """
    name = f"retention-{secrets.token_hex(3)}"
    kube.kubectl("create", "job", name, "-n", here().logging, "--from=cronjob/retention")

    def done() -> bool:
        status = kube.json("get", "job", name, "-n", here().logging)["status"]
        if status.get("failed", 0) > 2:
            raise WaitTimeout(
                "the job that deletes old indices to end", timeout, cause=" ".join(_said(kube, name)[-3:])
            )
        return bool(status.get("succeeded"))

    try:
        until(
            done,
            what="old indices to be deleted",
            timeout=timeout,
            every=0.3,
            cause=lambda: " ".join(_said(kube, name)[-3:]),
        )
        return _said(kube, name)
    finally:
        kube.kubectl("delete", "job", name, "-n", here().logging, "--wait=false", check=False)


def _said(kube: Kube, job: str) -> list[str]:
    return kube.kubectl("logs", "-n", here().logging, f"job/{job}", check=False).lines
