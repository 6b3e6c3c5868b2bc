"""HTTP/2 frames and HPACK, checked against the RFC's own examples and against real calls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.lessons.grpc import client, hpack, http2, server, stubs
from stackbook.lessons.grpc.hpack import HuffmanCoded
from stackbook.lessons.grpc.http2 import Frame, FrameError

# RFC 7541, appendix C, the examples without Huffman coding.
RFC = [
    ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [("custom-key", "custom-header")]),
    ("040c2f73616d706c652f70617468", [(":path", "/sample/path")]),
    ("100870617373776f726406736563726574", [("password", "secret")]),
    ("82", [(":method", "GET")]),
    (
        "828684410f7777772e6578616d706c652e636f6d",
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    ),
]


@pytest.mark.parametrize(("block", "wanted"), RFC)
def test_the_examples_of_the_rfc(block: str, wanted: list[tuple[str, str]]) -> None:
    assert hpack.decode(bytes.fromhex(block)) == wanted


def test_the_static_table() -> None:
    assert len(hpack.STATIC) == 61
    assert hpack.STATIC[0] == (":authority", "")
    assert hpack.STATIC[15] == ("accept-encoding", "gzip, deflate")
    assert hpack.STATIC[60] == ("www-authenticate", "")


def test_a_header_of_the_dynamic_table_and_a_change_of_its_size() -> None:
    block = bytes.fromhex("3f e1 1f 40 01 61 01 62 be")  # size 4096; a: b, added; entry 62
    assert hpack.decode(block) == [("a", "b"), ("a", "b")]


def test_what_hpack_leaves_to_others_or_refuses() -> None:
    with pytest.raises(HuffmanCoded):
        hpack.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))  # C.4.1
    for broken in ("80", "be", "00 05 61", "00"):
        with pytest.raises(IndexError):
            hpack.decode(bytes.fromhex(broken))


def written(frame: Frame) -> bytes:
    head = len(frame.payload).to_bytes(3, "big") + bytes([http2.TYPES.index(frame.kind), frame.flags])
    return head + frame.stream.to_bytes(4, "big") + frame.payload


frames = st.lists(
    st.builds(
        Frame, st.sampled_from(http2.TYPES), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=50)
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
