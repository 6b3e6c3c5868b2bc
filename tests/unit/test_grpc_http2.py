"""HTTP/2 frames and their headers, against frames that hyperframe and hpack write, and against real calls."""

import hpack
import hyperframe.frame as h2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.lessons.grpc import client, http2, server, stubs
from stackbook.lessons.grpc.http2 import Frame, FrameError


def written(frame: Frame) -> bytes:
    """The frame as a sender would write it."""
    made = {"DATA": h2.DataFrame, "PING": h2.PingFrame, "HEADERS": h2.HeadersFrame}[frame.kind](
        frame.stream, flags=sorted(frame.flags)
    )
    if frame.kind == "PING":
        made.opaque_data = frame.payload
    else:
        made.data = frame.payload
    return bytes(made.serialize())


streams = st.integers(1, 2**31 - 1)
frames = st.lists(
    st.one_of(
        st.builds(
            Frame, st.just("DATA"), st.sets(st.just("END_STREAM")).map(frozenset), streams, st.binary(max_size=50)
        ),
        st.builds(Frame, st.just("HEADERS"), st.just(frozenset({"END_HEADERS"})), streams, st.binary(max_size=50)),
        st.builds(Frame, st.just("PING"), st.just(frozenset()), st.just(0), st.binary(min_size=8, max_size=8)),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(frames, st.integers(1, 20))
def test_frames_come_back_and_a_cut_one_is_left_out(wanted: list[Frame], cut: int) -> None:
    data = b"".join(map(written, wanted))
    assert http2.frames(data) == wanted
    if wanted and cut <= len(written(wanted[-1])):
        assert http2.frames(data[:-cut]) == wanted[:-1]


def test_padding_and_priority_are_no_payload() -> None:
    frame = h2.HeadersFrame(3, flags=["END_HEADERS", "PADDED", "PRIORITY"])
    frame.pad_length, frame.stream_weight, frame.data = 7, 10, b"\x82"
    (read,) = http2.frames(bytes(frame.serialize()))
    assert read.payload == b"\x82"
    assert http2.headers([read]) == [{":method": "GET"}]


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    try:
        http2.headers(http2.frames(data))
    except FrameError as error:
        assert "\n" not in str(error)


def test_later_headers_refer_to_earlier_ones_and_texts_may_be_huffman_coded() -> None:
    encoder = hpack.Encoder()
    blocks = [encoder.encode([("grpc-status", "0"), ("x", "y" * 20)], huffman=True) for _ in range(2)]
    assert len(blocks[1]) < len(blocks[0])
    taken = [Frame("HEADERS", frozenset({"END_HEADERS"}), 1, block) for block in blocks]
    assert http2.headers(taken) == [{"grpc-status": "0", "x": "y" * 20}] * 2
    with pytest.raises(FrameError):
        http2.headers(taken[1:])  # what it refers to was not seen
    with pytest.raises(FrameError, match="CONTINUATION"):
        http2.headers([Frame("HEADERS", frozenset(), 1, b"\x82")])


def test_unknown_frames_and_broken_messages_are_refused() -> None:
    with pytest.raises(FrameError):
        http2.frames(b"\0\0\0\x63" + bytes(5))
    for data in (b"\1\0\0\0\0", b"\0\0\0\0\5ab"):
        with pytest.raises(FrameError):
            http2.messages(data)
    with pytest.raises(FrameError):
        _ = http2.Recording(sent=bytearray(b"GET / HTTP/1.1\r\n\r\n")).requests


def test_one_real_call() -> None:
    with server.serving(greeter=server.Greeter(pod="one")) as address, http2.recording(address) as taken:
        reply = client.greet(taken.address, "Ada", timeout=None)
    assert taken.request_headers[":path"] == "/helloworld.Greeter/SayHello"
    assert taken.request_headers["content-type"] == "application/grpc"
    assert taken.trailers["grpc-status"] == "0"
    assert http2.messages(http2.data_of(taken.requests)) == [stubs.request("Ada").SerializeToString()]
    assert http2.messages(http2.data_of(taken.replies)) == [reply.SerializeToString()]
    assert [row["frame"] for row in taken.rows()] == ["HEADERS", "DATA", "HEADERS", "DATA", "HEADERS"]
