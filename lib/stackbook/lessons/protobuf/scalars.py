"""The guide's table of types (its F27): each row is checked by its bytes, in Python, and in the generated Go code."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stackbook.artifacts import go_toolchain, protoc
from stackbook.lessons.protobuf.explain import type_name
from stackbook.lessons.protobuf.wire_format import WireType, walk


@dataclass(frozen=True)
class Row:
    """One row of the guide's table, with a value to try.

    Attributes:
        proto, note, go, python: the guide's words; `int/log` is its typo.
        field: the field of lessons.v1.Scalars.
        sample: a value.
    """

    proto: str
    note: str
    go: str
    python: str
    field: str
    sample: Any


GUIDE = (
    Row("double", "", "float64", "float", "a_double", 1.5),
    Row("float", "", "float32", "float", "a_float", 1.5),
    Row("int32", "cannot encode negatives", "int32", "int", "an_int32", -1),
    Row("int64", "cannot encode negatives", "int64", "int/log", "an_int64", -1),
    Row("uint32", "variable length", "uint32", "int/long", "a_uint32", 300),
    Row("uint64", "variable length", "uint64", "int/long", "a_uint64", 300),
    Row("sint32", "variable length", "int32", "int", "a_sint32", -1),
    Row("sint64", "variable length", "int64", "int/long", "a_sint64", -1),
    Row("fixed32", "4 bytes, better above 2^28", "uint32", "int/long", "a_fixed32", 300),
    Row("fixed64", "8 bytes, 2^56", "uint64", "int/long", "a_fixed64", 300),
    Row("sfixed32", "4 bytes", "int32", "int", "an_sfixed32", -1),
    Row("sfixed64", "8 bytes", "int64", "int/long", "an_sfixed64", -1),
    Row("bool", "", "bool", "bool", "a_bool", True),
    Row("string", "UTF-8 or 7-bit ASCII", "string", "unicode(Py2), str(Py3)", "a_string", "Grüße"),
    Row("bytes", "any byte sequence", "[]byte", "bytes", "a_bytes", b"\x00\xff"),
    Row("enum", "uint32", "N(uint32)", "enum", "an_enum", -1),
    Row("message", "user-defined", "N", "object of class", "a_message", {"x": -1, "y": 2}),
)


def types() -> Any:
    """The generated Python module of lessons/v1/types.proto."""
    return protoc.load("lessons.v1.types_pb2", proto="lessons/v1/types.proto", include=protoc.protos())


def one(row: Row, value: Any = None) -> Any:
    """A lessons.v1.Scalars with only this row's field set."""
    given = row.sample if value is None else value
    if isinstance(given, dict):
        given = types().Point(**given)
    return types().Scalars(**{row.field: given})


def go_types() -> dict[str, str]:
    """The Go type of each field of lessons.v1.Scalars, from the generated code."""
    source = (go_toolchain.modules() / "internal/pb/lessonsv1/types.pb.go").read_text(encoding="utf-8")
    struct = source.partition("type Scalars struct {")[2].partition("\n}")[0]
    found = re.findall(r'^\s+\w+\s+(\S+)\s+`protobuf:"[^"]*name=(\w+)', struct, re.MULTILINE)
    return {name: kind for kind, name in found}


def table() -> list[dict[str, Any]]:
    """Each type: a value, its parsed bytes, and the real types in Python and Go."""
    go = go_types()
    out = []
    for row in GUIDE:
        message = one(row)
        (field,) = walk(message.SerializeToString())
        assert type_name(message.DESCRIPTOR.fields_by_name[row.field]) == row.proto
        out.append(
            {
                "proto": row.proto,
                "value": "x: -1, y: 2" if row.proto == "message" else repr(row.sample),
                "tag": field.tag.hex(" "),
                "wire type": f"{int(field.wire_type)} {field.wire_type.name}",
                "length": field.length.hex(),
                "payload": field.payload.hex(" "),
                "bytes": len(field.payload),
                "Python": type(getattr(message, row.field)).__name__,
                "Go": go[row.field],
            }
        )
    return out


def payload_sizes(kind: str, values: Sequence[int]) -> list[int]:
    """The payload size in bytes of each value in a field of type `kind`, as the official library writes it.

    It measures packed fields, because they also contain zeros, so the curve has no gap.
    """
    message = protoc.schema(f"message One {{ repeated {kind} v = 1; }}")["One"]
    sizes = []
    for value in values:
        (field,) = walk(message(v=[value]).SerializeToString())
        assert field.wire_type is WireType.LEN
        sizes.append(len(field.payload))
    return sizes


def payload_size(kind: str, value: int) -> int:
    """The payload size in bytes of one value; see `payload_sizes`."""
    return payload_sizes(kind, [value])[0]


def extremes() -> list[Any]:
    """Messages with every field at its minimum, at its maximum, and in between."""
    limits: dict[str, tuple[Any, Any]] = {
        "double": (-sys.float_info.max, sys.float_info.max),
        "float": (-(2.0**127), 2.0**127),
        "bool": (False, True),
        "string": ("", "ü€😀" * 50),
        "bytes": (b"", bytes(range(256))),
        "enum": (-1, 2),
        "message": ({"x": -(2**31), "y": 2**31 - 1}, {"x": 1, "y": -1}),
    }
    for bits in (32, 64):
        for name in ("int", "sint", "sfixed"):
            limits[f"{name}{bits}"] = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name in ("uint", "fixed"):
            limits[f"{name}{bits}"] = (0, 2**bits - 1)
    chosen = [{row.field: limits[row.proto][end] for row in GUIDE} for end in (0, 1)]
    chosen.append({row.field: row.sample for row in GUIDE})
    return [types().Scalars(**(c | {"a_message": types().Point(**c["a_message"])})) for c in chosen]


def magnitudes(bits: int, *, negative: bool, most: int) -> list[int]:
    """Values at which sizes change, and their neighbours: powers of two up to 2^bits, optionally of both signs."""
    found = {0}
    for power in range(bits + 1):
        found |= {2**power - 1, 2**power}
    found = {v for v in found if v <= most}
    if negative:
        found |= {-v for v in found} | {-most - 1}
    return sorted(found)
