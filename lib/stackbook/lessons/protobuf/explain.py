"""Bytes explained by a schema: each field's tag, wire type, length, payload and meaning, as rows and as a picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from stackbook.lessons.protobuf.wire_format import Field, WireType, decode_varint, signed, unpack, unzigzag, walk

# (wire type, how to convert the raw number to the value); strings, bytes and messages are read from the payload.
_KINDS = {
    "int32": WireType.VARINT, "int64": WireType.VARINT, "uint32": WireType.VARINT, "uint64": WireType.VARINT,
    "sint32": WireType.VARINT, "sint64": WireType.VARINT, "bool": WireType.VARINT, "enum": WireType.VARINT,
    "fixed32": WireType.I32, "sfixed32": WireType.I32, "float": WireType.I32,
    "fixed64": WireType.I64, "sfixed64": WireType.I64, "double": WireType.I64,
    "string": WireType.LEN, "bytes": WireType.LEN, "message": WireType.LEN, "group": WireType.SGROUP,
}  # fmt: skip
_NAMES = (
    "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message", "bytes",
    "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64",
)  # fmt: skip  # FieldDescriptorProto.Type, from 1


def type_name(field: Any) -> str:
    """The proto type of a field descriptor, for example sint32.

    >>> from google.protobuf import timestamp_pb2
    >>> [type_name(f) for f in timestamp_pb2.Timestamp.DESCRIPTOR.fields]
    ['int64', 'int32']
    """
    return _NAMES[field.type - 1]


@dataclass(frozen=True)
class Part:
    """One field with its position and meaning.

    Attributes:
        depth: 0 for the message itself, 1 for a message in it, …
        offset: the offset of its first byte in the whole message.
        name: the field's name; empty if it is not in the schema.
        kind: the schema's type, or "unknown".
        value: its meaning.
        nested: whether the following parts explain its payload.
    """

    field: Field
    depth: int
    offset: int
    name: str
    kind: str
    value: str
    nested: bool = False


def explain(data: bytes, descriptor: Any, *, depth: int = 0, base: int = 0) -> list[Part]:
    """The parts of a message, outer before inner.

    Raises:
        WireError: the bytes are malformed.
    """
    parts: list[Part] = []
    for field in walk(data):
        known = descriptor.fields_by_number.get(field.number) if descriptor else None
        offset = base + field.offset
        kind = type_name(known) if known else "unknown"
        if known and kind == "message" and field.wire_type is WireType.LEN:
            inner_base = offset + len(field.tag) + len(field.length)
            inner = explain(field.payload, known.message_type, depth=depth + 1, base=inner_base)
            value = "" if inner else "empty"
            parts += [Part(field, depth, offset, known.name, known.message_type.name, value, bool(inner)), *inner]
            continue
        if known and not _fits(field, kind, known.is_repeated):
            kind, value = "wrong wire type", "kept as unknown"
        else:
            value = meaning(field, known)
        parts.append(Part(field, depth, offset, known.name if known else "", kind, value))
    return parts


def _fits(field: Field, kind: str, repeated: bool) -> bool:
    natural = _KINDS[kind]
    return field.wire_type is natural or (repeated and field.wire_type is WireType.LEN)


def meaning(field: Field, descriptor: Any) -> str:
    """A field's value according to the schema; without one, a number or bytes."""
    if descriptor is None:
        return str(field.value) if isinstance(field.value, int) else _short(field.payload)
    kind = type_name(descriptor)
    if field.wire_type is WireType.LEN and _KINDS[kind] is not WireType.LEN:
        return f"packed: {', '.join(_number(n, kind, descriptor) for n in unpack(field.payload, _KINDS[kind]))}"
    if kind == "string":
        return repr(field.payload.decode("utf-8", errors="replace"))
    if isinstance(field.value, int):
        return _number(field.value, kind, descriptor)
    return _short(field.payload)


def _number(raw: int, kind: str, descriptor: Any) -> str:
    if kind in ("int32", "enum"):
        value: int | float = signed(raw, 32)
    elif kind in ("int64", "sfixed64"):
        value = signed(raw, 64)
    elif kind == "sfixed32":
        value = signed(raw, 32)
    elif kind in ("sint32", "sint64"):
        value = unzigzag(raw)
    elif kind == "float":
        value = struct.unpack("<f", struct.pack("<I", raw))[0]
    elif kind == "double":
        value = struct.unpack("<d", struct.pack("<Q", raw))[0]
    elif kind == "bool":
        return str(bool(raw)).lower()
    else:
        value = raw
    if kind == "enum" and (named := descriptor.enum_type.values_by_number.get(value)):
        return f"{value} = {named.name}"
    return str(value)


def _short(payload: bytes, limit: int = 12) -> str:
    return f"{payload[:limit]!r}" + (f" … {len(payload)} bytes" if len(payload) > limit else "")


def rows(data: bytes, message: Any) -> list[dict[str, Any]]:
    """The parts as rows of a table.

    Args:
        data: the bytes.
        message: the schema's message class or a message, or None.
    """
    return [
        {
            "byte": part.offset,
            "tag": part.field.tag.hex(" "),
            "= number": "· " * part.depth + str(part.field.number),
            "wire type": f"{int(part.field.wire_type)} {part.field.wire_type.name}",
            "length": part.field.length.hex(" "),
            "payload": "(below)" if part.nested else _hex(part.field.payload),
            "field": part.name or "?",
            "type": part.kind,
            "value": part.value,
        }
        for part in explain(data, message.DESCRIPTOR if message else None)
    ]


def _hex(payload: bytes, limit: int = 12) -> str:
    return payload[:limit].hex(" ") + (" …" if len(payload) > limit else "")


_COLOURS = {"tag": "#0072B2", "length": "#E69F00", "payload": "#009E73", "end tag": "#CC79A7"}  # Okabe and Ito


def picture(data: bytes, message: Any, *, title: str, per_row: int = 24) -> Any:
    """A matplotlib figure: each byte is a box with a colour and letter for its role; a field's name is above its first byte.

    Args:
        data: the bytes, at most some hundred.
        message: the schema's message class or a message, or None.
        title: the figure's title.
        per_row: the number of boxes in a row.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    roles, labels = _roles(data, message.DESCRIPTOR if message else None, per_row)
    lines = -(-len(data) // per_row)
    fig, axes = plt.subplots(figsize=(0.46 * per_row, 0.9 + 1.35 * lines))
    for index, byte in enumerate(data):
        x, y = index % per_row, -1.9 * (index // per_row)
        axes.add_patch(Rectangle((x + 0.04, y), 0.92, 0.9, facecolor=_COLOURS[roles[index]], edgecolor="white"))
        axes.text(x + 0.5, y + 0.45, f"{byte:02x}", color="white" if roles[index] == "tag" else "black",
                  ha="center", va="center", family="monospace", fontsize=12)  # fmt: skip
        if index in labels:
            axes.text(x + 0.04, y + 0.98, labels[index], ha="left", va="bottom", fontsize=12)
    used = [role for role in _COLOURS if role in roles]
    axes.legend(
        handles=[Patch(color=_COLOURS[role], label=role) for role in used],
        loc="upper left", bbox_to_anchor=(0, -0.02), ncols=len(used), frameon=False,
    )  # fmt: skip
    axes.set(xlim=(0, per_row), ylim=(-1.9 * (lines - 1) - 0.1, 1.7), title=title)
    axes.axis("off")
    return fig


def _roles(data: bytes, descriptor: Any, per_row: int) -> tuple[list[str], dict[int, str]]:
    """The role of each byte, and for each field's first byte a label that ends before the next label."""
    roles, texts = ["payload"] * len(data), {}
    for part in explain(data, descriptor):
        at, field = part.offset, part.field
        pieces = {"tag": field.tag, "length": field.length, "payload": field.payload, "end tag": field.end}
        for role, piece in pieces.items():
            roles[at : at + len(piece)] = [role] * len(piece)
            at += len(piece)
        texts[part.offset] = f"{part.name or field.number}" + ("" if part.nested else f" = {part.value}")
    labels = {}
    starts = sorted(texts)
    for start, following in zip(starts, [*starts[1:], start_of_next_row(len(data), per_row)], strict=True):
        room = int(3.7 * (min(following, start_of_next_row(start, per_row)) - start))  # width of a box in characters
        text = texts[start]
        labels[start] = text if len(text) <= room else text[: max(room - 1, 1)] + "…"
    return roles, labels


def start_of_next_row(index: int, per_row: int) -> int:
    """The first index of the row after the one with `index`."""
    return (index // per_row + 1) * per_row


def varint_steps(data: bytes) -> list[dict[str, Any]]:
    """A varint in parts: the continuation bit and the seven bits of each byte, the lowest first."""
    value, end = decode_varint(data)
    steps = [
        {
            "byte": f"{byte:02x}",
            "bits": f"{byte >> 7} {byte & 0x7F:07b}",
            "more follow": "yes" if byte >> 7 else "no",
            "adds": f"{byte & 0x7F} × 2^{7 * i} = {(byte & 0x7F) << (7 * i)}",
        }
        for i, byte in enumerate(data[:end])
    ]
    return [*steps, {"byte": "", "bits": "", "more follow": "", "adds": f"sum = {value}"}]
