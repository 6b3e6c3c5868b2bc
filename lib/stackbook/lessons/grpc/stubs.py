"""The generated code of helloworld.proto, made by protoc when it is first asked for."""

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
    """The two generated modules. They are imported from a folder that is gone afterwards."""
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
        name: who is to be greeted; the server refuses an empty one.
        work: seconds that the server is to work before each reply.
        count: replies that LotsOfReplies is to send.
        padding: bytes to add to each reply.
    """
    message = load().messages.HelloRequest(name=name, count=count, padding=padding)
    if work:
        message.work.FromNanoseconds(round(work * 1e9))
    return message
