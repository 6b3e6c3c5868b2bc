"""Schema evolution: an old and a new program share a message, and each reads what the other wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf import unknown_fields
from google.protobuf.message import DecodeError

from stackbook.artifacts.protoc import schema

Outcome = Literal["same", "default", "kept as unknown", "not seen", "other value", "DecodeError"]
# "same" and "kept as unknown" lose nothing; "default" means a field that was never written; "not seen" means a written
# field that reads as its default; "other value" is dangerous: a wrong value without an error.


@dataclass(frozen=True)
class Change:
    """A change of a schema.

    Attributes:
        name: what was changed.
        old, new: the fields of the message before and after.
        writes_old, writes_new: what each program writes, as keyword arguments.
        forward: how the new program reads the old one's data, for each field of the new one.
        backward: the same for the new program's data in the old one.
    """

    name: str
    old: str
    new: str
    writes_old: Mapping[str, Any]
    writes_new: Mapping[str, Any]
    forward: Mapping[str, tuple[Outcome, Any]] = field(default_factory=dict)
    backward: Mapping[str, tuple[Outcome, Any]] = field(default_factory=dict)


CHANGES = (
    Change("a field is added", "int32 id = 1;", "int32 id = 1; string name = 2;", {"id": 7}, {"id": 7, "name": "x"},
           {"id": ("same", 7), "name": ("default", "")}, {"id": ("same", 7), "#2": ("kept as unknown", b"x")}),
    Change("a field is removed, its number reserved", "int32 id = 1; string name = 2;", "int32 id = 1; reserved 2;",
           {"id": 7, "name": "x"}, {"id": 7},
           {"id": ("same", 7), "#2": ("kept as unknown", b"x")}, {"id": ("same", 7), "name": ("default", "")}),
    Change("a field is renamed", "int32 id = 1;", "int32 picture_id = 1;", {"id": 7}, {"picture_id": 7},
           {"picture_id": ("same", 7)}, {"id": ("same", 7)}),
    Change("a number is reused, another wire type", "string mail = 1;", "int32 age = 1;", {"mail": "a@b"}, {"age": 42},
           {"age": ("not seen", 0), "#1": ("kept as unknown", b"a@b")},
           {"mail": ("not seen", ""), "#1": ("kept as unknown", 42)}),
    Change("a number is reused, the same wire type", "string mail = 1;", "string nick = 1;",
           {"mail": "a@b"}, {"nick": "bo"},
           {"nick": ("other value", "a@b")}, {"mail": ("other value", "bo")}),
    Change("int32 becomes sint32", "int32 n = 1;", "sint32 n = 1;", {"n": 150}, {"n": 150},
           {"n": ("other value", 75)}, {"n": ("other value", 300)}),
    Change("int32 becomes int64", "int32 n = 1;", "int64 n = 1;", {"n": -5}, {"n": 2**33 + 5},
           {"n": ("same", -5)}, {"n": ("other value", 5)}),
    Change("int32 becomes fixed32", "int32 n = 1;", "fixed32 n = 1;", {"n": 5}, {"n": 5},
           {"n": ("not seen", 0), "#1": ("kept as unknown", 5)}, {"n": ("not seen", 0), "#1": ("kept as unknown", 5)}),
    Change("bytes becomes string", "bytes b = 1;", "string b = 1;", {"b": b"\xff"}, {"b": "ü"},
           {"*": ("DecodeError", None)}, {"b": ("same", "ü".encode())}),
    Change("single becomes repeated", "string s = 1;", "repeated string s = 1;", {"s": "a"}, {"s": ["a", "b"]},
           {"s": ("same", ["a"])}, {"s": ("other value", "b")}),
    Change("single number becomes repeated (packed)", "int32 n = 1;", "repeated int32 n = 1;", {"n": 5}, {"n": [5, 6]},
           {"n": ("same", [5])}, {"n": ("not seen", 0), "#1": ("kept as unknown", b"\x05\x06")}),
    Change("an enum gets a value", "Colour c = 1; enum Colour { A = 0; B = 1; }",
           "Colour c = 1; enum Colour { A = 0; B = 1; C = 2; }", {"c": 1}, {"c": 2},
           {"c": ("same", 1)}, {"c": ("same", 2)}),
    Change("a field moves into a oneof", "int32 a = 1; int32 b = 2;", "oneof x { int32 a = 1; int32 b = 2; }",
           {"a": 1, "b": 2}, {"a": 1}, {"a": ("not seen", 0), "b": ("same", 2)},
           {"a": ("same", 1), "b": ("default", 0)}),
)  # fmt: skip


def meet(change: Change) -> tuple[dict[str, tuple[Outcome, Any]], dict[str, tuple[Outcome, Any]]]:
    """What really happens, field by field: (old data in the new program, new data in the old program).

    Unknown fields have the name "#" and their number. Every reader also writes the message again: unknown fields must
    survive that, otherwise they count as "default".
    """
    old, new = (schema(f"message M {{ {fields} }}")["M"] for fields in (change.old, change.new))
    return _read(old(**change.writes_old), new, change), _read(new(**change.writes_new), old, change)


def _read(written: Any, reader: Any, change: Change) -> dict[str, tuple[Outcome, Any]]:
    data = written.SerializeToString()
    try:
        got = reader.FromString(data)
    except DecodeError:
        return {"*": ("DecodeError", None)}
    sent = {f.number: _plain(getattr(written, f.name)) for f in written.DESCRIPTOR.fields}
    present = {f.number for f, _ in written.ListFields()}
    out: dict[str, tuple[Outcome, Any]] = {}
    for known in reader.DESCRIPTOR.fields:
        value, default = _plain(getattr(got, known.name)), _plain(getattr(reader(), known.name))
        if known.number not in present:
            out[known.name] = ("default", value)
        elif value == default:
            out[known.name] = ("not seen", value)
        else:
            same = _alike(sent[known.number], value) and not _reused(change, known.number)
            out[known.name] = ("same" if same else "other value", value)
    for extra in unknown_fields.UnknownFieldSet(reader.FromString(got.SerializeToString())):
        out[f"#{extra.field_number}"] = ("kept as unknown", extra.data)
    return out


def _reused(change: Change, number: int) -> bool:
    # The parser cannot know that mail and nick mean different things: only the people who changed the schema do.
    return change.name.startswith("a number is reused") and number == 1


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bytes) else list(value)


def _alike(sent: Any, got: Any) -> bool:
    if isinstance(sent, str) and isinstance(got, bytes):
        return sent.encode() == got
    return bool(sent == got or [sent] == got)


def rows() -> list[dict[str, Any]]:
    """Every change, with what really happened in both directions, in words."""
    out = []
    for change in CHANGES:
        forward, backward = meet(change)
        out.append(
            {
                "change": change.name,
                "old": change.old,
                "new": change.new,
                "new program reads old data": _words(forward),
                "old program reads new data": _words(backward),
                "verdict": verdict(forward, backward),
            }
        )
    return out


def verdict(*directions: Mapping[str, tuple[Outcome, Any]]) -> str:
    """Return "breaks" if a reader fails or reads a wrong value, "loses" if a value is not seen, else "safe"."""
    seen = {outcome for direction in directions for outcome, _ in direction.values()}
    if "DecodeError" in seen:
        return "breaks: an error"
    if "other value" in seen:
        return "breaks: a wrong value, no error"
    return "loses: the value is not seen" if "not seen" in seen else "safe"


def _words(direction: Mapping[str, tuple[Outcome, Any]]) -> str:
    return "; ".join(
        outcome if name == "*" else f"{name} = {value!r} ({outcome})" for name, (outcome, value) in direction.items()
    )
