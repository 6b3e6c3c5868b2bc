"""Two services that every server should offer: reflection, which describes the server, and health."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from stackbook.lessons.grpc import grpc, stubs


def services(channel: grpc.Channel) -> list[str]:
    """The full names of what the server offers, sorted."""
    return sorted(ProtoReflectionDescriptorDatabase(channel).get_services())


def call(channel: grpc.Channel, service: str, method: str, *, timeout: float = 5.0, **fields: Any) -> Any:
    """Make a unary call knowing only names: the types come from the server.

    Raises:
        KeyError: the server has no such service or method.
        grpc.RpcError: the call failed.
    """
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    found = pool.FindServiceByName(service).FindMethodByName(method)
    if found is None:
        raise KeyError(f"{service} has no method {method}")
    request, reply = (message_factory.GetMessageClass(kind) for kind in (found.input_type, found.output_type))
    ask = channel.unary_unary(
        f"/{service}/{method}", request_serializer=request.SerializeToString, response_deserializer=reply.FromString
    )
    return ask(request(**fields), timeout=timeout)


def watch_health(channel: grpc.Channel, *, timeout: float = 10.0) -> Iterator[str]:
    """The Greeter's health now, and after each change, by name."""
    request = health_pb2.HealthCheckRequest(service=stubs.SERVICE)
    for answer in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=timeout):
        yield health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
