"""Calls that must fail, each with a real cause; the result is the status that the caller sees."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.rpc import error_details_pb2
from grpc_status import rpc_status

from stackbook.analysis.expect import expect_failure
from stackbook.lessons.grpc import grpc, stubs
from stackbook.lessons.grpc.client import channel
from stackbook.lessons.grpc.processes import Server, go_server


@dataclass(frozen=True)
class Failure:
    """A failed call.

    Attributes:
        what: what was done.
        code: the name of its status.
        says: the shortened message.
    """

    what: str
    code: str
    says: str

    @property
    def row(self) -> dict[str, str]:
        """A row of a table."""
        return {"what was done": self.what, "status": self.code, "message": self.says or "–"}


def status_of(what: str, call: Callable[[], Any], *, says: int = 70) -> Failure:
    """Make a call that must fail.

    Args:
        what: the description for the table.
        call: makes the call.
        says: the maximum length of the message; 0 leaves it out, for messages with addresses or times.

    Raises:
        CheckFailed: the call did not fail.
    """
    error: Any = expect_failure(call, grpc.RpcError)
    text = " ".join((error.details() or "").split())
    return Failure(what, error.code().name, text[:says] + ("…" if says and len(text) > says else ""))


def violations(error: grpc.RpcError) -> dict[str, str]:
    """The fields that a BadRequest in the status details names, with the reasons."""
    status = rpc_status.from_call(error)
    found: dict[str, str] = {}
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {v.field: v.description for v in bad.field_violations}
    return found


def blamed(opened: grpc.Channel) -> dict[str, str]:
    """A server's answer to a request without a name that asks for 100 seconds of work.

    Raises:
        CheckFailed: the call did not fail.
    """
    bad = stubs.request("", work=100)
    error = expect_failure(lambda: stubs.stub(opened).SayHello(bad, timeout=5), grpc.RpcError)
    return violations(error)


def on_request(opened: grpc.Channel, *codes: str) -> list[Failure]:
    """Make the server fail with each of these codes, by the metadata `fail-with`."""
    stub = stubs.stub(opened)
    return [
        status_of(code, functools.partial(stub.SayHello, stubs.request(), metadata=(("fail-with", code),)))
        for code in codes
    ]


def abuse(opened: grpc.Channel) -> list[Failure]:
    """Bytes, names and sizes that no client with generated code would send."""
    hello = f"/{stubs.SERVICE}/SayHello"
    cases = (
        ("bytes that are not protobuf", hello, b"\xff"),
        ("a message cut short", hello, b"\x0a\x05ab"),
        ("a name that is not UTF-8", hello, b"\x0a\x02\xff\xfe"),
        ("an unknown method", f"/{stubs.SERVICE}/Bye", b""),
        ("an unknown service", "/nowhere.Service/Method", b""),
    )
    found = [status_of(what, functools.partial(raw, opened, method, data)) for what, method, data in cases]
    return [*found, *too_large(opened)]


def raw(opened: grpc.Channel, method: str, data: bytes) -> bytes:
    """Call `method` with bytes that are not a message of its schema, bypassing the generated code."""
    answer: bytes = opened.unary_unary(method)(data, timeout=5)
    return answer


def cancelled(opened: grpc.Channel) -> Failure:
    """Open a stream that would last a minute, read one reply, and cancel."""
    replies = stubs.stub(opened).LotsOfReplies(stubs.request("Ada", count=1000, work=0.05), timeout=60)
    next(replies)
    replies.cancel()
    return status_of("the client cancels a stream", lambda: list(replies))


def gone(opened: grpc.Channel, server: Server) -> Failure:
    """Read two replies of a stream, and kill the server."""
    replies = stubs.stub(opened).LotsOfReplies(stubs.request("Ada", count=1000, work=0.02), timeout=20)
    next(replies)
    next(replies)
    server.kill()
    return status_of("the server dies in mid-stream", lambda: list(replies), says=0)


def deadline(opened: grpc.Channel, *, request_id: str = "too-late", tries: int = 6) -> Failure:
    """Ask for ten seconds of work, with a deadline of 0.1 s; `request_id` finds the call in the server's log.

    Both ends have a timer. Since https://github.com/grpc/grpc-go/pull/8071, a Go server whose timer is slightly faster resets
    the stream, and the client may report CANCELLED before its own timer ends: such a call is repeated.
    """
    stub, request, metadata = stubs.stub(opened), stubs.request("Ada", work=10), (("x-request-id", request_id),)
    found = Failure("", "", "")
    for _ in range(tries):
        found = status_of(
            "0.1 s for 10 s of work", lambda: stub.SayHello(request, timeout=0.1, metadata=metadata), says=0
        )
        if found.code != "CANCELLED":
            break
    return found


def too_large(opened: grpc.Channel) -> tuple[Failure, Failure]:
    """Send a request, then a reply, of five megabytes: each side accepts at most four."""
    stub = stubs.stub(opened)
    up = status_of("a request of 5 MB", lambda: stub.SayHello(stubs.request("x" * 5_000_000), timeout=10))
    down = status_of(
        "a reply of 5 MB", lambda: stub.SayHello(stubs.request("x", padding=5_000_000), timeout=10), says=56
    )
    return up, down


def transport(certificates: Path) -> list[Failure]:
    """Plain text to TLS, TLS to plain text, an authority not trusted, a client without a certificate.

    Raises:
        CheckFailed: one of them succeeded, or the correct one failed.
    """
    pair = ("-tls-cert", str(certificates / "server.pem"), "-tls-key", str(certificates / "server.key"))
    mutual = (*pair, "-tls-client-ca", str(certificates / "ca.pem"))

    def hello(target: str, **settings: Any) -> str:
        with channel(target, **settings) as opened:
            return str(stubs.stub(opened).SayHello(stubs.request("Ada"), timeout=3).message)

    with contextlib.ExitStack() as stack:
        plain, tls, both = (stack.enter_context(go_server(*flags)).address for flags in ((), pair, mutual))
        found = [
            status_of("plain text to a TLS server", lambda: hello(tls), says=0),
            status_of("TLS to a plain text server", lambda: hello(plain, tls=certificates), says=0),
            status_of("TLS, another authority", lambda: hello(tls, tls=certificates, authority="stranger-ca"), says=0),
            status_of("mutual TLS without a certificate", lambda: hello(both, tls=certificates), says=0),
        ]
        assert hello(tls, tls=certificates) == hello(both, tls=certificates, mutual=True) == "Hello Ada"
        return found
