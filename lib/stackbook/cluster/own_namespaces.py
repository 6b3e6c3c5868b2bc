"""Namespaces that the lab created. A label identifies them, because others may use the same name.

A cluster may belong to somebody else. stackbook never deletes, empties or uses a namespace without the label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from stackbook.config.namespaces import here
from stackbook.core.errors import CommandFailed, InputError
from stackbook.core.results import Result
from stackbook.core.waiting import until

LABEL = "stackbook.lab/made"
MARK = f"{LABEL}=true"
ASK_ADMINISTRATOR = "an administrator of the cluster runs: stackbook rbac --profile … | kubectl apply -f -"
RULES = (
    "virtualservices.networking.istio.io",
    "destinationrules.networking.istio.io",
    "gateways.networking.istio.io",
    "serviceentries.networking.istio.io",
    "sidecars.networking.istio.io",
    "peerauthentications.security.istio.io",
)
CHAPTER = "stackbook.lab/chapter"
CONTENTS = ("deployments.apps", "services", "pods", *RULES, "telemetries.telemetry.istio.io")
"""What the chapters make in a learner's namespaces, beside bookinfo's service accounts."""
_OF_LOGS = ("statefulsets.apps", "cronjobs.batch", "jobs.batch", "secrets", "configmaps", "serviceaccounts")
"""What chapter 12 makes beside it in its own namespace, with the label `CHAPTER`."""


class Cluster(Protocol):
    """The part of `stackbook.cluster.kube.Kube` that this module uses."""

    def kubectl(self, *args: str, check: bool = True, stdin: Any = None, timeout: float = 60.0) -> Result:
        """Run kubectl."""
        ...

    def json(self, *args: str) -> Any:
        """The answer of a kubectl command with `-o json`."""
        ...


def demand(kube: Cluster, *names: str) -> None:
    """Refuse to use existing namespaces that the lab did not create; changes nothing.

    Raises:
        InputError: a namespace does not have the lab's label.
    """
    for found in _existing(kube, names):
        name, labels = found["metadata"]["name"], found["metadata"].get("labels", {})
        if name in names and labels.get(LABEL) != "true":
            raise InputError(
                f"there is a namespace {name!r} that this lab did not make (it has no label {MARK})",
                fix=f"use another cluster; or, if the namespace is the lab's: kubectl label namespace {name} {MARK}",
            )


def _existing(kube: Cluster, names: Sequence[str]) -> list[Any]:
    """The namespaces that exist, with at least those of `names`. On somebody else's cluster, a learner may not list them."""
    if not here().learner:
        return list(kube.json("get", "namespaces")["items"])
    answers = [kube.kubectl("get", "namespace", name, "-o", "json", check=False) for name in names]
    for name, answer in zip(names, answers, strict=True):
        if "NotFound" in answer.stderr or "Forbidden" in answer.stderr:
            raise InputError(f"there is no namespace {name} for this user", fix=ASK_ADMINISTRATOR)
        if not answer.ok:
            raise CommandFailed(answer)
    return [json.loads(answer.stdout) for answer in answers]


def create(kube: Cluster, *names: str) -> None:
    """Create namespaces with the lab's label; namespaces that the lab created before stay.

    Raises:
        InputError: a namespace is not the lab's.
    """
    for name in names:
        manifest = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{LABEL}: 'true'}}}}}}"
        answer = kube.kubectl("create", "-f", "-", stdin=manifest, check=False)
        if answer.ok:
            continue
        if "AlreadyExists" not in answer.stderr:
            raise CommandFailed(answer)
        demand(kube, name)


def provide(kube: Cluster, *names: str) -> None:
    """Create namespaces; on somebody else's cluster an administrator has made them.

    Raises:
        InputError: a namespace is not the lab's, or is missing on somebody else's cluster.
    """
    (demand if here().learner else create)(kube, *names)


def delete(kube: Cluster, *names: str, wait: bool = True, timeout: float = 120.0) -> None:
    """Delete the namespaces that have the lab's label; leave the others alone."""
    # One request selects by label and name, so a namespace that somebody creates meanwhile is not deleted.
    chosen = f"{MARK},kubernetes.io/metadata.name in ({','.join(names)})"
    kube.kubectl("delete", "namespace", "-l", chosen, f"--wait={str(wait).lower()}", timeout=timeout)


@contextmanager
def temporary(kube: Cluster, *names: str, timeout: float = 120.0) -> Iterator[None]:
    """Create empty namespaces that exist while the block runs; those that a killed run has left are deleted first.

    On somebody else's cluster, an administrator has made them, and they stay: they are emptied before and after the block.

    Raises:
        InputError: a namespace is not the lab's; nothing is changed.
        WaitTimeout: a namespace has no default service account after 30 s.
    """
    demand(kube, *names)
    if here().learner:
        with _emptied(kube, names, timeout):
            yield
        return
    delete(kube, *names, timeout=timeout)
    try:
        create(kube, *names)
        for name in names:
            until(
                partial(_has_account, kube, name),
                what=f"the default service account of {name}",
                timeout=30,
                every=0.2,
            )
        yield
    finally:
        delete(kube, *names, wait=False)


@contextmanager
def _emptied(kube: Cluster, names: Sequence[str], timeout: float) -> Iterator[None]:
    for name in names:
        empty(kube, name, timeout=timeout)
    try:
        yield
    finally:
        for name in names:
            empty(kube, name, wait=False, timeout=timeout)


def empty(kube: Cluster, name: str, *, wait: bool = True, timeout: float = 120.0) -> None:
    """Delete what the chapters make in one of the lab's namespaces: workloads, Services, accounts, rules, Prometheus' configuration.

    Raises:
        InputError: the namespace is not the lab's; nothing is changed.
    """
    demand(kube, name)
    if name == here().logging:  # first, or a controller replaces the pods
        of_logs = ("-l", f"{CHAPTER}=12", "-n", name, "--ignore-not-found", f"--wait={str(wait).lower()}")
        kube.kubectl("delete", ",".join(_OF_LOGS), *of_logs, timeout=timeout)
    flags = ("-n", name, "--ignore-not-found", f"--wait={str(wait).lower()}")
    kube.kubectl("delete", ",".join(CONTENTS), "--all", *flags, timeout=timeout)
    kube.kubectl("delete", "serviceaccounts", "-l", "account", *flags, timeout=timeout)
    kube.kubectl("delete", "configmaps,serviceaccounts", "-l", "app=prometheus", *flags, timeout=timeout)


def _has_account(kube: Cluster, name: str) -> bool:
    return kube.kubectl("get", "serviceaccount", "default", "-n", name, check=False).ok
