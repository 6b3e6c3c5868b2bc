"""The generated code of helloworld.proto; protoc generates it at first use."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any, NamedTuple

from stackbook.artifacts import protoc
from stackbook.lessons.grpc import grpc

SERVICE = "helloworld.Greeter"
MAX_MESSAGE = 64 << 20


class Stubs(NamedTuple):
    """The module of the messages and that of the service."""

    messages: Any
    service: Any


@functools.cache
def load() -> Stubs:
    """The two generated modules, imported from a temporary folder."""
    with protoc.generated("helloworld/helloworld.proto", include=protoc.protos(), grpc=True):
        importlib.invalidate_caches()
        found: list[ModuleType] = [
            importlib.import_module(f"helloworld.helloworld_pb2{suffix}") for suffix in ("", "_grpc")
        ]
    return Stubs(*found)


def stub(channel: grpc.Channel) -> Any:
    """The Greeter's client on a channel."""
    return load().service.GreeterStub(channel)


def request(name: str = "world", *, work: float = 0.0, count: int = 0, padding: int = 0) -> Any:
    """A HelloRequest.

    Args:
        name: the name to greet; the server refuses an empty one.
        work: how many seconds the server works before each reply.
        count: how many replies LotsOfReplies sends.
        padding: bytes to add to each reply.
    """
    message = load().messages.HelloRequest(name=name, count=count, padding=padding)
    if work:
        message.work.FromNanoseconds(round(work * 1e9))
    return message
