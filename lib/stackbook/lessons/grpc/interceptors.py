"""An interceptor: code that runs around every call of a client, without changing the calls."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from stackbook.lessons.grpc import grpc


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class RequestId(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Gives each call a request id if it has none, and stores (method, id, status) of each in `seen`.

    Args:
        make: creates an id.
    """

    def __init__(self, make: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self.make = make
        self.seen: list[tuple[str, str, str]] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Called for each call; see `grpc.UnaryUnaryClientInterceptor`."""
        metadata = list(details.metadata or ())
        known = dict(metadata)
        if "x-request-id" not in known:
            known["x-request-id"] = self.make()
            metadata.append(("x-request-id", known["x-request-id"]))
        new = _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )
        call = continuation(new, request)
        self.seen.append((details.method, known["x-request-id"], call.code().name))
        return call
