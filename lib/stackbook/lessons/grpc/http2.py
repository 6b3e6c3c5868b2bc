"""One gRPC call on the wire: recorded by a proxy, then split into HTTP/2 frames and gRPC messages.

hyperframe parses the frames, hpack their headers. A frame: 3 bytes of length, 1 of type, 1 of flags, 4 of stream (https://www.rfc-editor.org/rfc/rfc9113#section-4.1).
A gRPC message in DATA frames: 1 byte that says whether it is compressed, 4 bytes of length, then protobuf
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import hpack
import hyperframe.frame
from hyperframe.exceptions import HyperframeError

from stackbook.core.errors import StackbookError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9  # bytes before a frame's payload


class FrameError(StackbookError):
    """The bytes are not HTTP/2 frames."""


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        kind: its type, as RFC 9113 spells it.
        flags: the names of the flags that are set.
        stream: the number of its stream.
        payload: its content, without padding and priority.
    """

    kind: str
    flags: frozenset[str]
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        """Whether this is its sender's last frame on the stream."""
        return "END_STREAM" in self.flags


@dataclass
class Recording:
    """The recorded bytes, by direction."""

    address: str = ""
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)

    @property
    def requests(self) -> list[Frame]:
        """The client's frames, after the preface that starts every HTTP/2 connection."""
        if not self.sent.startswith(PREFACE):
            raise FrameError("the connection does not start with the preface of HTTP/2")
        return frames(bytes(self.sent[len(PREFACE) :]))

    @property
    def replies(self) -> list[Frame]:
        """The server's frames."""
        return frames(bytes(self.received))

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of the first call."""
        return headers(self.requests)[0]

    @property
    def trailers(self) -> dict[str, str]:
        """The trailers of the first call, with its status."""
        return headers(self.replies)[:2][-1]

    def rows(self) -> list[dict[str, str]]:
        """The HEADERS and DATA frames as rows of a table, requests first, without what differs between runs."""
        found = []
        for way, taken in (("→", self.requests), ("←", self.replies)):
            blocks = iter(headers(taken))
            for frame in taken:
                if frame.kind not in ("HEADERS", "DATA") or not (frame.payload or frame.ends_stream):
                    continue
                shown = frame.payload.hex(" ")
                if frame.kind == "HEADERS":
                    kept = {k: v for k, v in next(blocks).items() if k not in (":authority", "user-agent")}
                    shown = "\n".join(f"{name}: {value}" for name, value in kept.items())
                end = "yes" if frame.ends_stream else ""
                found.append({"": way, "frame": frame.kind, "ends the stream": end, "content": shown})
        return found


def frames(data: bytes) -> list[Frame]:
    """The frames of one direction, without an incomplete last one.

    Raises:
        FrameError: a frame is malformed, or its type is not in RFC 9113.
    """
    found, at = [], 0
    while at + _HEAD <= len(data):
        try:
            frame, size = hyperframe.frame.Frame.parse_frame_header(memoryview(data[at : at + _HEAD]), strict=True)
            if at + _HEAD + size > len(data):
                break
            body = data[at + _HEAD : at + _HEAD + size]
            frame.parse_body(memoryview(body))
        except HyperframeError as error:
            raise FrameError(f"byte {at}: {error}") from None
        kind = _words(type(frame).__name__.removesuffix("Frame"))
        found.append(Frame(kind, frozenset(frame.flags), frame.stream_id, bytes(getattr(frame, "data", body))))
        at += _HEAD + size
    return found


def _words(name: str) -> str:
    """A class's name as RFC 9113 spells the type.

    >>> [_words(name) for name in ("Data", "RstStream", "GoAway", "WindowUpdate")]
    ['DATA', 'RST_STREAM', 'GOAWAY', 'WINDOW_UPDATE']
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper().replace("GO_AWAY", "GOAWAY")


def headers(found: list[Frame]) -> list[dict[str, str]]:
    """The headers of each HEADERS frame of one direction, in order: later ones may refer to earlier ones.

    Raises:
        FrameError: a block is malformed, or continues in a CONTINUATION frame.
    """
    decoder, blocks = hpack.Decoder(), []
    for frame in found:
        if frame.kind != "HEADERS":
            continue
        if "END_HEADERS" not in frame.flags:
            raise FrameError("these headers continue in a CONTINUATION frame")
        try:
            blocks.append({str(name): str(value) for name, value in decoder.decode(frame.payload)})
        except hpack.HPACKError as error:
            raise FrameError(f"these headers cannot be decoded: {error}") from None
    return blocks


def messages(data: bytes) -> list[bytes]:
    """The gRPC messages in the joined payloads of DATA frames, without their prefixes.

    Raises:
        FrameError: a message is compressed or incomplete.
    """
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if data[at] or at + 5 + size > len(data):
            raise FrameError("a gRPC message is compressed or incomplete")
        found.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def data_of(found: list[Frame]) -> bytes:
    """The joined payloads of the DATA frames."""
    return b"".join(frame.payload for frame in found if frame.kind == "DATA")


@contextlib.contextmanager
def recording(target: str) -> Iterator[Recording]:
    """Run a proxy to `target` for one connection; the Recording has its address and all bytes that pass."""
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
