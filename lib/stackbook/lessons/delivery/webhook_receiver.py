"""A listener that stands in for Drone: it stores the requests that arrive, byte for byte, and starts nothing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stackbook.core.redact import Secret
from stackbook.core.waiting import until

_MOST = 1 << 20  # maximum size of a body in bytes


@dataclass(frozen=True)
class Request:
    """A request as it arrived; `raw` is its head and body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    raw: bytes


@dataclass
class Listener:
    """A listener on loopback, and the requests that it received."""

    host: str
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}"

    def wait(self, path: str, *, timeout: float = 20.0) -> Request:
        """The first request to a path.

        Raises:
            WaitTimeout: none arrived.
        """

        def found() -> Request | None:
            return next((r for r in list(self.requests) if r.path.partition("?")[0] == path), None)

        seen = lambda: f"{len(self.requests)} other requests"  # noqa: E731
        return until(found, what=f"a request to {path}", timeout=timeout, every=0.05, last=seen)


class _Handler(BaseHTTPRequestHandler):
    """Store each request and answer 204."""

    protocol_version = "HTTP/1.1"

    def _keep(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), _MOST)
        body = self.rfile.read(length)
        head = f"{self.requestline}\r\n{self.headers.as_string()}".encode()
        kept: list[Request] = self.server.kept  # type: ignore[attr-defined]
        kept.append(Request(self.command, self.path, dict(self.headers.items()), body, head + body))
        self.send_response(204)
        self.end_headers()

    do_GET = do_POST = _keep

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the page shows what arrived."""


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Listen on a free port of loopback while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    listener = Listener(f"127.0.0.1:{server.server_port}")
    server.kept = listener.requests  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def signed(request: Request, secret: Secret, header: str = "X-Gitea-Signature") -> bool:
    """Whether a webhook's body was signed with the secret: HMAC-SHA256 of the body, in hexadecimal."""
    wanted = hmac.new(secret.reveal().encode(), request.body, hashlib.sha256).hexdigest()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return hmac.compare_digest(headers.get(header.lower(), ""), wanted)
