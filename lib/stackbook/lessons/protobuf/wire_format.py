"""The wire format of protobuf, read byte by byte.

    message  := (tag payload)*
    tag      := varint of (field number << 3 | wire type)
    payload  := varint            wire type 0   int32 int64 uint32 uint64 sint32 sint64 bool enum
              | 8 bytes           wire type 1   fixed64 sfixed64 double
              | length bytes      wire type 2   string bytes message, packed repeated; length is a varint
              | field* end-tag    wire type 3   group, ended by wire type 4 with the same number
              | 4 bytes           wire type 5   fixed32 sfixed32 float

https://protobuf.dev/programming-guides/encoding/. This module does not use the official library; the tests compare the two.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from stackbook.core.errors import StackbookError

MAX_NUMBER = 2**29 - 1
MAX_DEPTH = 100  # the official parsers' default limit
_MASK = 2**64 - 1


class WireType(IntEnum):
    """How to determine the payload's length."""

    VARINT = 0
    I64 = 1
    LEN = 2
    SGROUP = 3
    EGROUP = 4
    I32 = 5


class WireError(StackbookError):
    """The bytes are not a protobuf message; `offset` is the position of the error, in bytes."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.reason, self.offset = reason, offset


@dataclass(frozen=True)
class Field:
    """One field as encoded in the message.

    Attributes:
        offset: the offset of the tag's first byte in the message.
        tag: the bytes of the tag.
        length: the bytes of the length of a LEN field; empty otherwise.
        payload: the bytes of the value; for a group, without its end tag.
        end: the bytes of a group's end tag; empty otherwise.
    """

    offset: int
    number: int
    wire_type: WireType
    tag: bytes
    length: bytes
    payload: bytes
    end: bytes = b""

    @property
    def raw(self) -> bytes:
        """All bytes of the field."""
        return self.tag + self.length + self.payload + self.end

    @property
    def value(self) -> int | bytes | tuple[Field, ...]:
        """An unsigned number, bytes, or a group's fields: more is not known without a schema."""
        if self.wire_type is WireType.VARINT:
            return decode_varint(self.payload)[0]
        if self.wire_type is WireType.SGROUP:
            return walk(self.payload)
        if self.wire_type is WireType.LEN:
            return self.payload
        return int.from_bytes(self.payload, "little")


def encode_varint(value: int) -> bytes:
    """Seven bits per byte, lowest first; the eighth bit means that more bytes follow. Negatives are 64-bit two's complement.

    >>> encode_varint(300).hex(), len(encode_varint(-1))
    ('ac02', 10)
    """
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{value} does not fit 64 bits")
    rest, out = value & _MASK, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def decode_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The unsigned value at `offset`, and the offset after it; bits above the 64th are dropped, as in other parsers.

    Raises:
        WireError: the bytes end within the varint, or it has more than ten.
    """
    value = 0
    for index in range(10):
        if offset + index >= len(data):
            raise WireError("the message ends within a varint", offset)
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _MASK, offset + index + 1
    raise WireError("a varint has more than ten bytes", offset)


def zigzag(value: int) -> int:
    """sint32 and sint64: 0, -1, 1, -2 … become 0, 1, 2, 3 …, so that small negatives stay short.

    >>> [zigzag(v) for v in (0, -1, 1, -2)]
    [0, 1, 2, 3]
    """
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    """The inverse of `zigzag`."""
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def signed(value: int, bits: int = 64) -> int:
    """The lowest `bits` bits as a two's complement number."""
    value &= 2**bits - 1
    return value - 2**bits if value >> (bits - 1) else value


def tag(number: int, wire_type: int) -> bytes:
    """The tag of a field.

    >>> tag(1, 0).hex(), tag(15, 0).hex(), tag(16, 0).hex()
    ('08', '78', '8001')
    """
    return encode_varint(number << 3 | wire_type)


def walk(data: bytes) -> tuple[Field, ...]:
    """The fields of a message, in the order of their bytes. It does not parse the payloads of LEN fields.

    Raises:
        WireError: the bytes are malformed.
    """
    fields, end = _walk(data, 0, None, MAX_DEPTH)
    assert end == len(data)
    return tuple(fields)


def _walk(data: bytes, offset: int, group: int | None, depth: int) -> tuple[list[Field], int]:
    """Fields from `offset` to the end, or to the end tag of `group`, and the offset after them."""
    if depth < 0:
        raise WireError(f"more than {MAX_DEPTH} levels of groups", offset)
    fields: list[Field] = []
    while offset < len(data):
        start = offset
        number, wire_type, offset = _read_tag(data, start)
        head = data[start:offset]
        if wire_type is WireType.EGROUP:
            if number != group:
                raise WireError(f"a group ends (field {number}) that was not open", start)
            return fields, offset
        if wire_type is WireType.SGROUP:
            inner, offset = _walk(data, offset, number, depth - 1)
            close = inner[-1].offset + len(inner[-1].raw) if inner else start + len(head)
            fields.append(
                Field(start, number, wire_type, head, b"", data[start + len(head) : close], data[close:offset])
            )
            continue
        length, payload, offset = _read_payload(data, offset, wire_type)
        fields.append(Field(start, number, wire_type, head, length, payload))
    if group is not None:
        raise WireError(f"the message ends within group {group}", offset)
    return fields, offset


def _read_tag(data: bytes, offset: int) -> tuple[int, WireType, int]:
    value, after = decode_varint(data, offset)
    if value >= 2**32 or after - offset > 5:
        raise WireError("a tag does not fit 32 bits", offset)
    number, kind = value >> 3, value & 7
    if number == 0:
        raise WireError("field number 0", offset)
    if kind > WireType.I32:
        raise WireError(f"wire type {kind} does not exist", offset)
    return number, WireType(kind), after


def _read_payload(data: bytes, offset: int, wire_type: WireType) -> tuple[bytes, bytes, int]:
    """The length's bytes, the payload's bytes, and the offset after them."""
    start = offset
    if wire_type is WireType.VARINT:
        _, offset = decode_varint(data, offset)
        return b"", data[start:offset], offset
    if wire_type is WireType.LEN:
        size, offset = decode_varint(data, offset)
        length = data[start:offset]
    else:
        size, length = (8 if wire_type is WireType.I64 else 4), b""
    if size > len(data) - offset:
        raise WireError(f"{size} bytes are announced and {len(data) - offset} are left", start)
    return length, data[offset : offset + size], offset + size


def unpack(payload: bytes, wire_type: WireType) -> Iterator[int]:
    """The unsigned numbers of a packed repeated field.

    Raises:
        WireError: the payload is not a whole number of values.
    """
    offset = 0
    while offset < len(payload):
        _, value, offset = _read_payload(payload, offset, wire_type)
        yield decode_varint(value)[0] if wire_type is WireType.VARINT else int.from_bytes(value, "little")


def encode(fields: Iterable[Field]) -> bytes:
    """The bytes from which the fields were read."""
    return b"".join(field.raw for field in fields)


def readings(field: Field) -> dict[str, object]:
    r"""What the payload could mean: without the schema, the written type is unknown.

    >>> readings(walk(b"\x08\x03")[0])
    {'uint64': 3, 'int64': 3, 'sint64': -2, 'bool': True}
    """
    value, payload = field.value, field.payload
    if field.wire_type is WireType.VARINT and isinstance(value, int):
        out: dict[str, object] = {"uint64": value, "int64": signed(value), "sint64": unzigzag(value)}
        return out | ({"bool": bool(value)} if value < 256 else {})
    if field.wire_type in (WireType.I32, WireType.I64) and isinstance(value, int):
        bits = len(payload) * 8
        name, code = ("float", "<f") if bits == 32 else ("double", "<d")
        return {f"fixed{bits}": value, f"sfixed{bits}": signed(value, bits), name: struct.unpack(code, payload)[0]}
    if field.wire_type is WireType.SGROUP:
        return {"group": value}
    out = {"bytes": payload}
    with contextlib.suppress(UnicodeDecodeError):
        out["string"] = payload.decode("utf-8")
    with contextlib.suppress(WireError):
        out["message"] = walk(payload)
    return out
