"""Faults of the way of a log line, made on purpose and taken back: a full disk, a shipper that is locked out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stackbook.core.waiting import until
from stackbook.observability.logs.client import INDICES, Store
from stackbook.observability.logs.credentials import NAMESPACE

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

_DISK = "cluster.routing.allocation.disk.watermark"
_FULL: Mapping[str, str | None] = {f"{_DISK}.{name}": "1000tb" for name in ("low", "high", "flood_stage")}
_BLOCK = "index.blocks.read_only_allow_delete"
_AS_BEFORE: Mapping[str, str | None] = dict.fromkeys(_FULL)


@contextlib.contextmanager
def disk_full(store: Store, *, timeout: float = 60.0) -> Iterator[str]:
    """Elasticsearch takes its disk for full while the block runs; yields what it says to one who wants to write.

    Its watermarks are set to more free space than any disk has. Every 10 s it looks at the disk, and blocks the indices. It
    would open them by itself when it looks again; afterwards they are opened at once, by hand.

    Raises:
        WaitTimeout: it has not blocked them, or does not open them again.
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
    """The indices of logs that may only be read and deleted."""
    found = store.client.indices.get_settings(index=INDICES, name=_BLOCK, flat_settings=True)
    return sorted(
        name for name, entry in found.items()
        if entry["settings"].get(_BLOCK) == "true"
    )  # fmt: skip


def refusal(store: Store) -> str:
    """Why Elasticsearch takes no document for the newest index; empty when it takes one (which is deleted again)."""
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
    """Elasticsearch does not know the shippers' user while the block runs: whole requests are refused, as with a wrong password.

    It looks at its file of users every second.
    """
    pod = ("elasticsearch-0", "sh", "-c")
    try:
        kube.exec(NAMESPACE, *pod, ": > config/users", container="elasticsearch")
        yield
    finally:
        kube.exec(NAMESPACE, *pod, "cp /users/users config/users", container="elasticsearch")
