"""The lab's bookshop as four processes on loopback, with a relay between each two services that counts the calls."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import observed
from stackbook.core.child_processes import end, free_port
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until

SERVICES = ("productpage", "details", "reviews", "ratings")
# The request by which each service is called alone.
PATHS = {
    "productpage": "/api/v1/products", "details": "/details/0", "reviews": "/reviews/0", "ratings": "/ratings/0",
}  # fmt: skip

Edge = tuple[str, str]


@dataclass
class Shop:
    """The running shop.

    Attributes:
        ports: the services' ports on loopback.
        processes: the services' processes.
        calls: how often each pair of caller and callee occurred.
    """

    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    calls: Counter[Edge] = field(default_factory=Counter)

    def ask(self, service: str, path: str = "") -> httpx.Response:
        """Call a service directly; by default with its own request.

        Raises:
            httpx.TransportError: the service does not answer.
        """
        url = f"http://127.0.0.1:{self.ports[service]}{path or PATHS[service]}"
        return httpx.get(url, timeout=20, trust_env=False)

    def during(self, service: str, path: str = "") -> set[Edge]:
        """The calls that one request to a service causes."""
        before = Counter(self.calls)
        self.ask(service, path).raise_for_status()
        return set(self.calls - before)

    def kill(self, service: str) -> None:
        """Kill a service, like a crash."""
        self.processes[service].kill()
        self.processes[service].wait(10)

    def works(self) -> dict[str, bool]:
        """Which parts of the product page are present now."""
        text = self.ask("productpage", "/productpage").text
        return {
            "page": "The Comedy of Errors" in text,
            "details": "1234567890" in text,
            "reviews": "An extremely entertaining play" in text,
            "stars": "★" in text,
        }


def relays(program: str) -> list[Edge]:
    """The calls between services that the source contains: `upstream("RATINGS", "ratings")` in a service's file."""
    folder = go_toolchain.modules() / "cmd" / program
    found = []
    for path in sorted(folder.glob("*.go")):
        if path.name.endswith("_test.go"):
            continue
        owner = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if begun := re.match(r"func (?:\((?:\w+ )?(\w+)\) )?(\w+)\(", line):
                owner = (
                    begun[2] if begun[2] in SERVICES and not begun[1] else "productpage" if begun[1] == "front" else ""
                )
            if (call := re.search(r'upstream\("[A-Z]+", "(\w+)"\)', line)) and owner:
                found.append((owner, call[1]))
    return sorted(set(found))


@contextlib.contextmanager
def running(program: Path) -> Iterator[Shop]:
    """Run the shop while the block runs; reviews is v3, which asks for stars.

    Args:
        program: the lab's bookinfo (artifact `app-bookinfo`).

    Raises:
        WaitTimeout: a service did not answer.
        CheckFailed: a service exited immediately.
    """
    with contextlib.ExitStack() as stack:
        shop = Shop({})
        # The relays first: they keep their ports, so that no service can get one of them.
        relays = {
            (name, other): stack.enter_context(_relay(shop, (name, other))) for name in SERVICES for other in SERVICES
        }
        for name in SERVICES:
            env = {"PATH": os.defpath, "HOSTNAME": name, "SERVICE_VERSION": "v3", "DRAIN_SECONDS": "0"}
            for other in SERVICES:
                env |= {
                    f"{other.upper()}_HOSTNAME": "127.0.0.1",
                    f"{other.upper()}_SERVICE_PORT": str(relays[name, other]),
                }
            _start(shop, name, program, env)
            stack.callback(end, shop.processes[name], steps=((signal.SIGTERM, 5.0),))
        yield shop


def _start(shop: Shop, name: str, program: Path, env: dict[str, str], *, tries: int = 3) -> None:
    """Start a service and wait until it answers; if another program took its port first, use another port."""
    for left in reversed(range(tries)):
        shop.ports[name] = port = free_port()
        process = subprocess.Popen(
            go_toolchain.guarded([str(program), "-port", str(port), name]),
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        observed.tell([str(program), "-port", str(port), name], background=True)

        def settled(process: subprocess.Popen[bytes] = process) -> bool:
            return process.poll() is not None or name in shop.ask(name, "/health").headers.get("x-served-by", "")

        try:
            until(settled, what=f"{name} to answer", timeout=20, every=0.05, tolerate=(httpx.TransportError,))
        except BaseException:
            end(process, steps=((signal.SIGTERM, 5.0),))
            raise
        if process.poll() is None:
            shop.processes[name] = process
            return
        if not left:
            raise CheckFailed(f"{name} exited immediately on each of {tries} ports, with status {process.returncode}")


class _Way(ThreadingHTTPServer):
    """A relay for one caller and callee; it belongs to the caller, like a sidecar."""

    daemon_threads = True

    def __init__(self, shop: Shop, edge: Edge) -> None:
        self.shop, self.edge = shop, edge
        self.client = httpx.Client(timeout=20, trust_env=False)
        super().__init__(("127.0.0.1", 0), _Relay)


class _Relay(BaseHTTPRequestHandler):
    """Forwards a GET and counts it; answers 503 like a sidecar if the service does not answer."""

    protocol_version = "HTTP/1.1"
    server: _Way

    def do_GET(self) -> None:
        """Relay one request."""
        self.server.shop.calls[self.server.edge] += 1
        try:
            port = self.server.shop.ports[self.server.edge[1]]
            answer = self.server.client.get(f"http://127.0.0.1:{port}{self.path}")
            status, kind, body = answer.status_code, answer.headers.get("content-type", ""), answer.content
        except httpx.TransportError:
            status, kind, body = 503, "text/plain", b"nobody answers"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the calls are counted."""


@contextlib.contextmanager
def _relay(shop: Shop, edge: Edge) -> Iterator[int]:
    server = _Way(shop, edge)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        server.client.close()
        thread.join(5)


def words(answer: Any) -> set[str]:
    """The names of all fields in an answer, without keys that are data (the reviewers of a rating)."""
    if isinstance(answer, dict):
        own = {key for key in answer if key[:1].islower() or "-" in key or key.isupper()}
        return own.union(*(words(value) for value in answer.values()))
    if isinstance(answer, list):
        return set().union(*(words(value) for value in answer))
    return set()
