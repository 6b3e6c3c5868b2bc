"""One gRPC call as it passes over the wire: recorded by a proxy, then taken apart into HTTP/2 frames and gRPC messages.

A frame: 3 bytes of length, 1 of type, 1 of flags, 4 of stream (https://www.rfc-editor.org/rfc/rfc9113#section-4.1).
A gRPC message in DATA frames: 1 byte that says whether it is compressed, 4 bytes of length, then protobuf
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from stackbook.core.errors import StackbookError
from stackbook.lessons.grpc import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TYPES = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
)  # fmt: skip
END_STREAM = 0x1


class FrameError(StackbookError):
    """The bytes are no HTTP/2 frames."""


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: str
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Whether its sender sends nothing more on the stream."""
        return self.kind in ("DATA", "HEADERS") and bool(self.flags & END_STREAM)


@dataclass
class Recording:
    """What passed, by direction."""

    address: str = ""
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)

    @property
    def requests(self) -> list[Frame]:
        """The client's frames, after the preface with which every HTTP/2 connection begins."""
        if not self.sent.startswith(PREFACE):
            raise FrameError("the connection does not begin with the preface of HTTP/2")
        return frames(bytes(self.sent[len(PREFACE) :]))

    @property
    def replies(self) -> list[Frame]:
        """The server's frames."""
        return frames(bytes(self.received))

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of the first call."""
        return headers(next(frame for frame in self.requests if frame.kind == "HEADERS"))

    @property
    def trailers(self) -> dict[str, str]:
        """What the server sent last for the first call: its status."""
        first, last = [headers(frame) for frame in self.replies if frame.kind == "HEADERS"][:2]
        return last or first

    def rows(self) -> list[dict[str, str]]:
        """The HEADERS and DATA frames as rows of a table, requests first; what differs on each run is left out."""
        found = []
        for way, taken in (("→", self.requests), ("←", self.replies)):
            for frame in taken:
                if frame.kind not in ("HEADERS", "DATA") or not (frame.payload or frame.ends_stream):
                    continue
                shown = frame.payload.hex(" ")
                if frame.kind == "HEADERS":
                    kept = {k: v for k, v in headers(frame).items() if k not in (":authority", "user-agent")}
                    shown = "\n".join(f"{name}: {value}" for name, value in kept.items())
                end = "yes" if frame.ends_stream else ""
                found.append({"": way, "frame": frame.kind, "ends the stream": end, "content": shown})
        return found


def frames(data: bytes) -> list[Frame]:
    """The frames of one direction; a last one that is cut off is left out.

    Raises:
        FrameError: a frame of an unknown type.
    """
    found, at = [], 0
    while at + 9 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        if at + 9 + size > len(data):
            break
        kind, flags = data[at + 3], data[at + 4]
        if kind >= len(TYPES):
            raise FrameError(f"frame type {kind}")
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        found.append(Frame(TYPES[kind], flags, stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def headers(frame: Frame) -> dict[str, str]:
    """The headers of a HEADERS frame without padding.

    Raises:
        HuffmanCoded: the sender codes its texts.
    """
    if frame.kind != "HEADERS" or frame.flags & 0x8:
        raise FrameError("no HEADERS frame without padding")
    block = frame.payload[5:] if frame.flags & 0x20 else frame.payload  # 0x20: five bytes of priority first
    return dict(hpack.decode(block))


def messages(data: bytes) -> list[bytes]:
    """The gRPC messages in the joined payloads of DATA frames, without their prefixes.

    Raises:
        FrameError: one is compressed or cut off.
    """
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if data[at] or at + 5 + size > len(data):
            raise FrameError("a gRPC message is compressed or cut off")
        found.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def data_of(found: list[Frame]) -> bytes:
    """The joined payloads of the DATA frames."""
    return b"".join(frame.payload for frame in found if frame.kind == "DATA")


@contextlib.contextmanager
def recording(target: str) -> Iterator[Recording]:
    """A proxy to `target` for one connection; its address and all bytes that pass stand in the Recording."""
    host, _, port = target.rpartition(":")
    taken = Recording()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        taken.address = f"127.0.0.1:{listener.getsockname()[1]}"
        worker = threading.Thread(target=_relay, args=(listener, (host, int(port)), taken), daemon=True)
        worker.start()
        yield taken
        worker.join(10)


def _relay(listener: socket.socket, target: tuple[str, int], taken: Recording) -> None:
    try:
        client, _ = listener.accept()
    except TimeoutError:
        return
    with client, socket.create_connection(target) as server:
        back = threading.Thread(target=_copy, args=(server, client, taken.received), daemon=True)
        back.start()
        _copy(client, server, taken.sent)
        back.join(5)


def _copy(source: socket.socket, sink: socket.socket, taken: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            taken += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
