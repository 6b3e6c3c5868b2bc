"""The Greeter's server in Python: the same behaviour as lib/apps/cmd/greeter-server.

    python -m stackbook.lessons.grpc.server --address 127.0.0.1:0

prints one line of JSON with the address when it listens; on SIGTERM it stops after its running calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from stackbook.lessons.grpc import grpc, stubs

MAX_WORK = 60.0  # seconds


class Greeter:
    """The four methods.

    Args:
        pod: the pod's name in replies.
        version: the version in replies.
    """

    def __init__(self, pod: str = "", version: str = "v1") -> None:
        self.pod, self.version = pod or os.environ.get("HOSTNAME", "python"), version

    def SayHello(self, request: Any, context: grpc.ServicerContext) -> Any:
        """One request, one reply."""
        self._check(request, context)
        self._work(request, context)
        return self._reply(request, context, f"Hello {request.name}")

    def LotsOfReplies(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """One request, many replies."""
        self._check(request, context)
        for _ in range(request.count or 3):
            self._work(request, context)
            yield self._reply(request, context, f"Hello {request.name}")

    def LotsOfGreetings(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Many requests, one reply."""
        names = []
        for request in requests:
            self._check(request, context)
            names.append(request.name)
        return self._reply(stubs.load().messages.HelloRequest(), context, f"Hello {', '.join(names)}")

    def BidiHello(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Many of both."""
        for request in requests:
            self._check(request, context)
            self._work(request, context)
            yield self._reply(request, context, f"Hello {request.name}")

    def _reply(self, request: Any, context: grpc.ServicerContext, text: str) -> Any:
        messages = stubs.load().messages
        server = messages.Server(pod=self.pod, version=self.version, language="Python")
        reply = messages.HelloReply(message=text, server=server, padding=bytes(request.padding))
        left = context.time_remaining()
        if left is not None and left < 1e9:  # without a deadline, gRPC reports a very long time
            reply.time_left.FromNanoseconds(round(left * 1e9))
        return reply

    def _check(self, request: Any, context: grpc.ServicerContext) -> None:
        bad = []
        if not request.name:
            bad.append(("name", "must not be empty"))
        if not 0 <= request.work.ToTimedelta().total_seconds() <= MAX_WORK:
            bad.append(("work", "must be between 0 and 60 s"))
        if request.padding > stubs.MAX_MESSAGE:
            bad.append(("padding", "must be at most 64 MiB"))
        if bad:
            _refuse(context, bad)

    def _work(self, request: Any, context: grpc.ServicerContext) -> None:
        seconds = request.work.ToTimedelta().total_seconds()
        if seconds:
            ended = threading.Event()
            if context.add_callback(ended.set) and ended.wait(seconds):
                context.abort(grpc.StatusCode.CANCELLED, "the caller has gone")


def _refuse(context: grpc.ServicerContext, bad: list[tuple[str, str]]) -> NoReturn:
    """End the call with INVALID_ARGUMENT and, in the details, the invalid fields."""
    violation = error_details_pb2.BadRequest.FieldViolation
    details = error_details_pb2.BadRequest(
        field_violations=[violation(field=field, description=text) for field, text in bad]
    )
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="the request cannot be served")
    status.details.add().Pack(details)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


class NameServer(grpc.ServerInterceptor):  # type: ignore[misc]
    """Adds x-served-by to each answer, and logs a line of JSON for each call unless `quiet`."""

    def __init__(self, greeter: Greeter, *, quiet: bool) -> None:
        self.greeter, self.quiet = greeter, quiet

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Called for each call before its method; see `grpc.ServerInterceptor`."""
        handler = continuation(details)
        if handler is None or not details.method.startswith(f"/{stubs.SERVICE}/"):
            return handler
        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        method = getattr(handler, f"{kind[0]}_{kind[1]}")

        def named(request: Any, context: grpc.ServicerContext) -> Any:
            served_by = f"greeter/{self.greeter.version} {self.greeter.pod}"
            context.send_initial_metadata((("x-served-by", served_by),))
            started = time.monotonic()
            if not self.quiet:
                context.add_callback(lambda: self._line(details, started))
            return method(request, context)

        return make(named, handler.request_deserializer, handler.response_serializer)

    def _line(self, details: grpc.HandlerCallDetails, started: float) -> None:
        sent = dict(details.invocation_metadata)
        values = {"msg": "call", "method": details.method, "ms": round((time.monotonic() - started) * 1000, 3)}
        values["end_user"], values["request_id"] = sent.get("end-user", ""), sent.get("x-request-id", "")
        print(json.dumps(values), flush=True)


@contextlib.contextmanager
def serving(
    address: str = "127.0.0.1:0", *, greeter: Greeter | None = None, tls: Path | None = None, quiet: bool = True
) -> Iterator[str]:
    """Serve in this process while the block runs; yields the address.

    Args:
        address: host and port; port 0 takes a free one.
        greeter: the service that answers.
        tls: a folder with server.pem and server.key; None for plain text.
        quiet: log no line per call.
    """
    answers = greeter or Greeter()
    server = grpc.server(futures.ThreadPoolExecutor(16), interceptors=[NameServer(answers, quiet=quiet)])
    stubs.load().service.add_GreeterServicer_to_server(answers, server)
    state = health.HealthServicer()
    state.set(stubs.SERVICE, health_pb2.HealthCheckResponse.SERVING)
    state.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((stubs.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    host = address.rpartition(":")[0]
    if tls is None:
        port = server.add_insecure_port(address)
    else:
        pair = ((tls / "server.key").read_bytes(), (tls / "server.pem").read_bytes())
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        state.enter_graceful_shutdown()
        server.stop(grace=5).wait()


def main(argv: list[str] | None = None) -> int:
    """The program; see the module."""
    parser = argparse.ArgumentParser(
        prog="stackbook.lessons.grpc.server", description="The Greeter's server in Python."
    )
    parser.add_argument("--address", default="127.0.0.1:0", help="host and port; port 0 takes a free one")
    parser.add_argument("--version", default=os.environ.get("SERVICE_VERSION", "v1"), help="the version in replies")
    parser.add_argument("--tls", type=Path, help="folder with server.pem and server.key")
    options = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    greeter = Greeter(version=options.version)
    with serving(options.address, greeter=greeter, tls=options.tls, quiet=False) as address:
        print(json.dumps({"msg": "listening", "address": address}), flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
