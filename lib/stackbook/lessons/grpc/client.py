"""The Greeter's client in Python, like the guide's Go client: a name from the command line, a deadline of one second.

python -m stackbook.lessons.grpc.client --target 127.0.0.1:50051 world
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stackbook.lessons.grpc import grpc, stubs

_OPTIONS = (("grpc.enable_http_proxy", 0),)  # the lab's servers are never behind the host's proxy


@contextmanager
def channel(
    target: str,
    *,
    tls: Path | None = None,
    mutual: bool = False,
    authority: str = "ca",
    options: Sequence[tuple[str, Any]] = (),
) -> Iterator[grpc.Channel]:
    """A channel that is closed after the block.

    Args:
        target: host:port, or ipv4:A:P,B:P, or dns:///name:port.
        tls: a folder with the authority's certificate; None for plain text.
        mutual: present client.pem from that folder.
        authority: the certificate to trust, without its .pem.
        options: the channel's options, for example (("grpc.lb_policy_name", "round_robin"),).
    """
    wanted = [*_OPTIONS, *options]
    if tls is None:
        opened = grpc.insecure_channel(target, options=wanted)
    else:
        own = ((tls / "client.key").read_bytes(), (tls / "client.pem").read_bytes()) if mutual else (None, None)
        credentials = grpc.ssl_channel_credentials((tls / f"{authority}.pem").read_bytes(), *own)
        opened = grpc.secure_channel(target, credentials, options=wanted)
    try:
        yield opened
    finally:
        opened.close()


def greet(target: str, name: str = "world", *, timeout: float | None = 1.0) -> Any:
    """Make one call on a new channel; returns the HelloReply.

    Args:
        target: the server's address.
        name: the name to greet.
        timeout: deadline in seconds; None for none.

    Raises:
        grpc.RpcError: the call failed.
    """
    with channel(target) as opened:
        return stubs.stub(opened).SayHello(stubs.request(name), timeout=timeout)


def main(argv: list[str] | None = None) -> int:
    """The program; see the module."""
    parser = argparse.ArgumentParser(
        prog="stackbook.lessons.grpc.client", description="The Greeter's client in Python."
    )
    parser.add_argument("--target", default="localhost:50051", help="the server")
    parser.add_argument("--timeout", type=float, default=1.0, help="deadline in seconds")
    parser.add_argument("name", nargs="?", default="world")
    options = parser.parse_args(argv)
    try:
        print("Greeting:", greet(options.target, options.name, timeout=options.timeout).message)
    except grpc.RpcError as error:
        print(f"could not greet: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
