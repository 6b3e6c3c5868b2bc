"""Retries by service config: https://github.com/grpc/proposal/blob/master/A6-client-retries.md."""

from __future__ import annotations

import json
from typing import Any

from stackbook.lessons.grpc import stubs
from stackbook.lessons.grpc.client import channel
from stackbook.lessons.grpc.processes import Server

POLICY: dict[str, Any] = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
CONFIG = json.dumps({"methodConfig": [{"name": [{"service": stubs.SERVICE}], "retryPolicy": POLICY}]})


def failing(attempts: int) -> tuple[tuple[str, str], ...]:
    """Metadata that make the server in Go fail the first `attempts` attempts of a call."""
    return (("fail-with", "UNAVAILABLE"), ("fail-attempts", str(attempts)))


def attempts(server: Server, fails: int) -> list[str]:
    """Call a server that fails at first, with retries on; returns the code of each attempt that reached it.

    Args:
        server: a fresh server in Go.
        fails: how many attempts it fails.

    Raises:
        grpc.RpcError: the policy's attempts were not enough.
    """
    with channel(server.address, options=(("grpc.service_config", CONFIG),)) as patient:
        stubs.stub(patient).SayHello(stubs.request(), metadata=failing(fails), timeout=5)
    return [line["code"] for line in server.calls(fails + 1)]
