"""Chapter 08: a number that is used again, a broken message, types that cost too much. None needs a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from stackbook.artifacts import protoc
from stackbook.artifacts.go_toolchain import ToolFailed
from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.protobuf import wire_format

_CHAPTER = "08-protobuf"


def _message(attempt: Attempt, file: str, name: str) -> Any:
    """The class of a message in the learner's file.

    Raises:
        CheckFailed: protoc refuses the file, or it has no such message.
    """
    text = attempt.read(file)
    body = re.sub(r"^\s*(syntax|package)\b[^;]*;", "", text, flags=re.MULTILINE)
    try:
        found = protoc.schema(body)
    except ToolFailed as error:
        said = [line for line in error.output.stderr.splitlines() if "lesson.proto" in line] or ["protoc refuses it"]
        raise CheckFailed(f"{file}: {said[0].partition('lesson.proto:')[2].strip() or said[0]}") from error
    require(name in found, f"{file} has no message {name}")
    return found[name]


# 08-a

_OLD = 'syntax = "proto3";\n\nmessage Person {\n  string name = 1;\n  string mail = 2;\n}\n'
_NEW = {
    "nick": ("string", "bo"),
    "town": ("string", "Oslo"),
    "motto": ("bytes", b"carpe"),
}


def _new(attempt: Attempt, number: int, *, reserved: str = "") -> str:
    name = attempt.drawn["field"]
    kind = _NEW[name][0]
    return f'syntax = "proto3";\n\nmessage Person {{\n  string name = 1;\n{reserved}  {kind} {name} = {number};\n}}\n'


def _reused(attempt: Attempt) -> None:
    attempt.draw("field", sorted(_NEW))
    attempt.write("old.proto", _OLD)
    attempt.write("new.proto", _new(attempt, 2))


def _reused_claims(attempt: Attempt) -> Sequence[Claim]:
    name = attempt.drawn["field"]
    value = _NEW[name][1]
    old = protoc.schema("message Person { string name = 1; string mail = 2; }")["Person"]

    def read() -> str:
        new = _message(attempt, "new.proto", "Person")
        require(name in new.DESCRIPTOR.fields_by_name, f"the field {name} is gone from new.proto")
        try:
            got = new.FromString(old(name="Ada", mail="ada@example.org").SerializeToString())
        except DecodeError as error:
            raise CheckFailed("the new program cannot read an old message") from error
        require(got.name == "Ada", f"the name is {got.name!r}")
        seen = getattr(got, name)
        require(not seen, f"{name} is {seen!r}: that is the old message's mail address")
        return f"{name} is empty"

    def back() -> str:
        new = _message(attempt, "new.proto", "Person")
        require(name in new.DESCRIPTOR.fields_by_name, f"the field {name} is gone from new.proto")
        got = old.FromString(new(**{"name": "Ada", name: value}).SerializeToString())
        require(not got.mail, f"the old program takes {got.mail!r} for a mail address")
        return "mail is empty"

    def kept() -> str:
        new = _message(attempt, "new.proto", "Person")
        proto = new.DESCRIPTOR.file.serialized_pb
        ranges = [r for m in _file(proto).message_type if m.name == "Person" for r in m.reserved_range]
        held = any(r.start <= 2 < r.end for r in ranges)
        require(held, "nothing prevents the next field from using the number 2 again")
        return "2 is reserved"

    return [
        Claim(f"an old message, read by the new program, has no {name}", read),
        Claim(f"a new message, read by the old program, has no mail; {name} is still a field", back),
        Claim("the number 2 cannot be used again", kept),
    ]


def _file(data: bytes) -> Any:
    from google.protobuf import descriptor_pb2

    return descriptor_pb2.FileDescriptorProto.FromString(data)


def _reused_solution(attempt: Attempt) -> Sequence[Typed]:
    text = _new(attempt, 3, reserved="  reserved 2;\n")
    return [Typed(f"cat > new.proto <<'END'\n{text}END")]


# 08-b

_PICTURE = "message Picture { int32 id = 1; string location = 2; bytes data = 3; }"
_BREAKS = {
    "length": "the length of a field is one too large",
    "wire type": "a tag has the wrong wire type",
    "cut": "the last byte is missing",
}


def _picture(attempt: Attempt) -> Any:
    made = protoc.schema(_PICTURE)["Picture"]
    place = attempt.draw("place", ["Oslo", "Turin", "Chengdu"])
    return made(id=attempt.draw("number", [150, 300, 1717]), location=place, data=b"\x01\x02\x03")


def _broken(attempt: Attempt) -> None:
    whole = _picture(attempt).SerializeToString()
    fields = wire_format.walk(whole)
    bad = bytearray(whole)
    how = attempt.draw("how", sorted(_BREAKS))
    if how == "length":
        bad[fields[1].offset + 1] += 1
    elif how == "wire type":
        bad[fields[0].offset] = (fields[0].number << 3) | wire_format.WireType.I64
    else:
        del bad[-1]
    message = _picture(attempt)
    attempt.write("message.hex", bytes(bad).hex(" ") + "\n")
    attempt.write("picture.proto", f'syntax = "proto3";\n\n{_PICTURE}\n')
    attempt.write("MEANT", f"id: {message.id}\nlocation: {message.location}\ndata: 01 02 03\n")


def _bytes(attempt: Attempt) -> bytes:
    try:
        return bytes.fromhex(attempt.read("message.hex"))
    except ValueError as error:
        raise CheckFailed("message.hex does not consist of pairs of hexadecimal digits") from error


def _broken_claims(attempt: Attempt) -> Sequence[Claim]:
    meant = _picture(attempt)

    def walked() -> str:
        fields = wire_format.walk(_bytes(attempt))
        return f"{len(fields)} fields: {', '.join(str(field.number) for field in fields)}"

    def parsed() -> Any:
        try:
            return type(meant).FromString(_bytes(attempt))
        except DecodeError as error:
            raise CheckFailed("the library cannot read the message") from error

    def equal() -> str:
        got = parsed()
        wrong = [name for name in ("id", "location", "data") if getattr(got, name) != getattr(meant, name)]
        require(not wrong, f"not as in MEANT: {', '.join(wrong)}")
        return "as in MEANT"

    def exact() -> str:
        data, right = _bytes(attempt), meant.SerializeToString()
        require(data == right, f"the {len(data)} bytes differ from those that the library writes")
        return f"{len(data)} bytes"

    return [
        Claim("the bytes can be read field by field", walked),
        Claim("the library reads the values in MEANT", equal),
        Claim("the bytes are those that the library writes", exact),
    ]


def _broken_solution(attempt: Attempt) -> Sequence[Typed]:
    right = _picture(attempt).SerializeToString().hex(" ")
    return [Typed("cat message.hex MEANT"), Typed(f"echo '{right}' > message.hex")]


# 08-c

_READINGS = ({"tenths": -53, "count": 7, "digest": 4_000_000_001}, {"tenths": 215, "count": 90, "digest": 3_123_456_789},
             {"tenths": -400, "count": 1, "digest": 2_718_281_828})  # fmt: skip
_BEST = {"tenths": "sint32", "count": "uint32", "digest": "fixed32"}


def _readings(attempt: Attempt) -> list[dict[str, int]]:
    shift = attempt.draw("shift", [0, 3, 8])
    return [{**one, "tenths": one["tenths"] - shift} for one in _READINGS]


def _schema(types: dict[str, str]) -> str:
    fields = "".join(f"  {kind} {name} = {number};\n" for number, (name, kind) in enumerate(types.items(), 1))
    return f'syntax = "proto3";\n\nmessage Reading {{\n{fields}}}\n'


def _costly(attempt: Attempt) -> None:
    attempt.write("reading.proto", _schema({"tenths": "int32", "count": "fixed64", "digest": "uint64"}))
    lines = [f"{one['tenths']}\t{one['count']}\t{one['digest']}" for one in _readings(attempt)]
    attempt.write("readings.tsv", "\n".join(["tenths\tcount\tdigest", *lines]) + "\n")


def _costly_claims(attempt: Attempt) -> Sequence[Claim]:
    wanted = _readings(attempt)
    best = protoc.schema(_schema(_BEST).partition(";")[2])["Reading"]
    least = sum(len(best(**one).SerializeToString()) for one in wanted)

    def written() -> list[bytes]:
        made = _message(attempt, "reading.proto", "Reading")
        try:
            return [made(**one).SerializeToString() for one in wanted]
        except (ValueError, TypeError) as error:
            raise CheckFailed(f"a value of a reading does not fit its type: {error}") from error

    def same() -> str:
        made = _message(attempt, "reading.proto", "Reading")
        for one, data in zip(wanted, written(), strict=True):
            got = made.FromString(data)
            wrong = [name for name, value in one.items() if getattr(got, name) != value]
            require(not wrong, f"wrong values come back for {', '.join(wrong)}")
        return f"{len(wanted)} readings come back unchanged"

    def small() -> str:
        size = sum(len(data) for data in written())
        require(size <= least, f"{size} bytes for {len(wanted)} readings, but {least} are enough")
        return f"{size} bytes"

    return [
        Claim("every reading comes back unchanged", same),
        Claim(f"together they take at most {least} bytes", small),
    ]


def _costly_solution(attempt: Attempt) -> Sequence[Typed]:
    return [Typed(f"cat > reading.proto <<'END'\n{_schema(_BEST)}END")]


CHALLENGES = (
    Challenge(
        id="08-a",
        chapter=_CHAPTER,
        title="A number that is used again",
        situation="new.proto is old.proto without the mail address and with another field. Since then, mail addresses turn up "
        "where they do not belong.",
        goal="Old and new programs read each other's messages without mixing up fields, and nobody can make that mistake again.",
        hints=(
            "Compare old.proto and new.proto. What do the bytes contain of a field: its name, its type, or its number?",
            "The new field has the number of the old one. A reader cannot tell the two apart.",
            "Give the new field a number that was never used, and write `reserved 2;` into the message.",
        ),
        begin=_reused,
        claims=_reused_claims,
        solution=_reused_solution,
    ),
    Challenge(
        id="08-b",
        chapter=_CHAPTER,
        title="A message that was damaged",
        situation="message.hex is a Picture (see picture.proto) as bytes. On the way one byte was changed or lost. MEANT has the "
        "values that were sent.",
        goal="The bytes are again the message that was sent.",
        hints=(
            "Take the bytes apart by hand: tag, then a varint, or a length and that many bytes. Where does it go wrong?",
            "A tag is number << 3 | wire type: 0 for a varint, 2 for a field with a length. `wire_format.walk` says where it stops.",
            "Count the letters of the location and the bytes of the data, and compare them with their lengths.",
        ),
        begin=_broken,
        claims=_broken_claims,
        solution=_broken_solution,
    ),
    Challenge(
        id="08-c",
        chapter=_CHAPTER,
        title="Types that cost too much",
        situation="A sensor sends the readings of readings.tsv, a million a day. Its schema in reading.proto takes more bytes than it "
        "needs to.",
        goal="The same fields and values, in as few bytes as the types of proto3 allow.",
        hints=(
            "How many bytes does -53 take as int32? Chapter 08 shows each type with its bytes.",
            "A varint is short only for small numbers. Negative numbers are all long, unless zigzag makes them small.",
            "sint32 for numbers that may be negative, uint32 for a small count, fixed32 for numbers spread evenly over 32 bits.",
        ),
        begin=_costly,
        claims=_costly_claims,
        solution=_costly_solution,
    ),
)
