"""Faults on the path of a log line: a full disk, and shippers that Elasticsearch refuses. Each is undone after its block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stackbook.config.namespaces import here
from stackbook.core.waiting import until
from stackbook.observability.logs.client import INDICES, Store

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

_DISK = "cluster.routing.allocation.disk.watermark"
_FULL: Mapping[str, str | None] = {f"{_DISK}.{name}": "1000tb" for name in ("low", "high", "flood_stage")}
_BLOCK = "index.blocks.read_only_allow_delete"
_AS_BEFORE: Mapping[str, str | None] = dict.fromkeys(_FULL)


@contextlib.contextmanager
def disk_full(store: Store, *, timeout: float = 60.0) -> Iterator[str]:
    """Make Elasticsearch treat its disk as full while the block runs; yields what it answers to a write.

    Its watermarks are set to more free space than any disk has. It checks the disk every 10 s and then blocks the indices.
    After the block they are opened at once, instead of at its next check.

    Raises:
        WaitTimeout: it did not block them, or did not open them again.
    """
    cluster = store.client.cluster
    try:
        cluster.put_settings(persistent=dict(_FULL))
        until(lambda: blocked(store), what="Elasticsearch to block its indices", timeout=timeout, every=0.5)
        yield refusal(store)
    finally:
        cluster.put_settings(persistent=dict(_AS_BEFORE))
        store.client.indices.put_settings(index=INDICES, settings={_BLOCK: None})
        until(lambda: not blocked(store), what="Elasticsearch to open its indices again", timeout=timeout, every=0.5,
              last=lambda: ", ".join(blocked(store)))  # fmt: skip


def blocked(store: Store) -> list[str]:
    """The log indices that can only be read and deleted."""
    found = store.client.indices.get_settings(index=INDICES, name=_BLOCK, flat_settings=True)
    return sorted(
        name for name, entry in found.items()
        if entry["settings"].get(_BLOCK) == "true"
    )  # fmt: skip


def refusal(store: Store) -> str:
    """Why Elasticsearch accepts no document for the newest index; empty if it accepts one (which is deleted again)."""
    import elasticsearch

    newest = max(store.client.indices.get(index=INDICES).keys())
    try:
        answer = store.client.index(index=newest, document={"message": "may I?"}, timeout="2s")
    except elasticsearch.ApiError as error:
        body: Any = error.body
        return str(body["error"]["reason"]) if isinstance(body, dict) and "error" in body else str(error)
    store.client.delete(index=newest, id=answer["_id"])
    return ""


@contextlib.contextmanager
def locked_out(kube: Kube) -> Iterator[None]:
    """Remove the shippers' user from Elasticsearch while the block runs: it refuses whole requests, as with a wrong password.

    Elasticsearch reads its file of users every second.
    """
    pod = ("elasticsearch-0", "sh", "-c")
    try:
        kube.exec(here().logging, *pod, ": > config/users", container="elasticsearch")
        yield
    finally:
        kube.exec(here().logging, *pod, "cp /users/users config/users", container="elasticsearch")
