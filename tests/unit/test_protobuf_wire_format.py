"""The byte walker against the official library, which shares no code with it."""

import doctest
import struct
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, empty_pb2, struct_pb2, unknown_fields, wrappers_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stackbook.lessons.protobuf import wire_format
from stackbook.lessons.protobuf.wire_format import Field, WireError, WireType


def test_examples() -> None:
    assert doctest.testmod(wire_format).failed == 0


def official(data: bytes) -> list[tuple[int, int, Any]] | None:
    """The fields as the official parser sees them; None when it refuses.

    The C parser behind Python (upb) lets field number 0 pass among unknown fields. The specification and Go's parser
    do not, and neither do we: counted as refused here.
    """
    message = empty_pb2.Empty()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None

    def plain(fields: unknown_fields.UnknownFieldSet) -> list[tuple[int, int, Any]]:
        return [(f.field_number, f.wire_type, plain(f.data) if f.wire_type == 3 else f.data) for f in fields]

    fields = plain(unknown_fields.UnknownFieldSet(message))
    return None if has_number_zero(fields) else fields


def has_number_zero(fields: list[tuple[int, int, Any]]) -> bool:
    return any(number == 0 or (kind == 3 and has_number_zero(value)) for number, kind, value in fields)


def ours(data: bytes) -> list[tuple[int, int, Any]] | None:
    def plain(fields: tuple[Field, ...]) -> list[tuple[int, int, Any]]:
        return [(f.number, int(f.wire_type), plain(f.value) if isinstance(f.value, tuple) else f.value) for f in fields]

    try:
        return plain(wire_format.walk(data))
    except WireError:
        return None


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=40))
@example(b"\x00\x00")  # field number 0
@example(b"\x0b\x0c")  # an empty group
@example(b"\x0b\x08\x01\x0c")
@example(b"\x0b\x14")  # ended by another number
@example(b"\x0c")  # ended without a start
@example(b"\x0e")  # wire type 6
@example(b"\x0a\x05ab")  # truncated
@example(b"\x08" + b"\xff" * 10)  # a varint without an end
@example(b"\x08" + b"\xff" * 9 + b"\x7f")  # bits above the 64th
@example(b"\x88\x80\x80\x80\x80\x00\x01")  # a tag of more than five bytes
@example(b"\x88\x80\x00\x01")  # a tag written longer than needed
def test_any_bytes_are_judged_and_read_alike(data: bytes) -> None:
    assert ours(data) == official(data)


numbers = st.integers(1, 15) | st.integers(16, 2047) | st.integers(2048, wire_format.MAX_NUMBER)


@st.composite
def encoded_fields(draw: st.DrawFn, depth: int = 2) -> bytes:
    out = b""
    for _ in range(draw(st.integers(0, 5))):
        number = draw(numbers)
        kind = draw(st.sampled_from([0, 1, 2, 5] + ([3] if depth else [])))
        body = {
            0: lambda: wire_format.encode_varint(draw(st.integers(0, 2**64 - 1))),
            1: lambda: draw(st.binary(min_size=8, max_size=8)),
            2: lambda: (lambda b: wire_format.encode_varint(len(b)) + b)(draw(st.binary(max_size=200))),
            3: lambda number=number: draw(encoded_fields(depth=depth - 1)) + wire_format.tag(number, WireType.EGROUP),
            5: lambda: draw(st.binary(min_size=4, max_size=4)),
        }[kind]()
        out += wire_format.tag(number, kind) + body
    return out


@settings(deadline=None)
@given(encoded_fields())
def test_well_formed_messages_are_read_alike_and_put_together_again(data: bytes) -> None:
    assert ours(data) is not None
    assert ours(data) == official(data)
    fields = wire_format.walk(data)
    assert wire_format.encode(fields) == data
    assert [f.offset for f in fields] == [len(wire_format.encode(fields[:i])) for i in range(len(fields))]


@settings(deadline=None)
@given(encoded_fields(), st.data())
def test_every_truncation_is_judged_alike(data: bytes, choose: st.DataObject) -> None:
    cut = data[: choose.draw(st.integers(0, len(data)))]
    assert ours(cut) == official(cut)


SCALARS: list[tuple[Any, st.SearchStrategy[Any], str]] = [
    (wrappers_pb2.Int32Value, st.integers(-(2**31), 2**31 - 1), "int64"),
    (wrappers_pb2.Int64Value, st.integers(-(2**63), 2**63 - 1), "int64"),
    (wrappers_pb2.UInt32Value, st.integers(0, 2**32 - 1), "uint64"),
    (wrappers_pb2.UInt64Value, st.integers(0, 2**64 - 1), "uint64"),
    (wrappers_pb2.DoubleValue, st.floats(allow_nan=False), "double"),
    (wrappers_pb2.FloatValue, st.floats(allow_nan=False, width=32), "float"),
    (wrappers_pb2.StringValue, st.text(), "string"),
    (wrappers_pb2.BytesValue, st.binary(), "bytes"),
]


@pytest.mark.parametrize(("kind", "values", "reading"), SCALARS, ids=[k.DESCRIPTOR.name for k, _, _ in SCALARS])
def test_scalars_written_by_the_library_are_read(kind: Any, values: st.SearchStrategy[Any], reading: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(values)
    def check(value: Any) -> None:
        data = kind(value=value).SerializeToString()
        fields = wire_format.walk(data)
        if not fields:  # the default value is not written
            assert not value
            return
        assert wire_format.readings(fields[0])[reading] == value

    check()


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_zigzag_and_two_s_complement_have_inverses(value: int) -> None:
    assert wire_format.unzigzag(wire_format.zigzag(value)) == value
    assert wire_format.signed(wire_format.decode_varint(wire_format.encode_varint(value))[0]) == value
    assert 0 <= wire_format.zigzag(value) < 2**64


def test_a_real_message_of_many_levels() -> None:
    data = descriptor_pb2.FileDescriptorProto.FromString(struct_pb2.DESCRIPTOR.serialized_pb).SerializeToString()
    assert wire_format.encode(wire_format.walk(data)) == data
    names = [f.payload for f in wire_format.walk(data) if f.number == 1]
    assert names == [b"google/protobuf/struct.proto"]


def test_packed() -> None:
    payload = wire_format.encode_varint(1) + wire_format.encode_varint(300) + wire_format.encode_varint(-1)
    assert list(wire_format.unpack(payload, WireType.VARINT)) == [1, 300, 2**64 - 1]
    assert list(wire_format.unpack(struct.pack("<2I", 7, 8), WireType.I32)) == [7, 8]
    with pytest.raises(WireError, match="4 bytes are announced and 2 are left"):
        list(wire_format.unpack(b"\x01\x00", WireType.I32))


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"\x08\x80", "ends within a varint", 1),
        (b"\x12\x07abc", "7 bytes are announced and 3 are left", 1),
        (b"\x08\x01\x00", "field number 0", 2),
        (b"\x0f", "wire type 7 does not exist", 0),
        (b"\x1b\x08\x01", "ends within group 3", 3),
        (b"\x1c", "was not open", 0),
        (b"\x0b" * 102, "levels of groups", 101),
    ],
)
def test_errors_say_where(data: bytes, reason: str, offset: int) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        wire_format.walk(data)
    assert caught.value.offset == offset
    assert official(data) is None


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        wire_format.encode_varint(2**64)
