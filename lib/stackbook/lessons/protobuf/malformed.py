"""Bytes that are not a message, each read by three parsers: our own reader, Python's library and Go's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from stackbook.analysis.expect import expect_failure
from stackbook.artifacts.go_toolchain import call
from stackbook.lessons.protobuf.scalars import types
from stackbook.lessons.protobuf.wire_format import WireError, WireType, encode_varint, tag, walk


@dataclass(frozen=True)
class Case:
    """Some bytes read as lessons.v1.Scalars.

    Attributes:
        name: what is wrong with the bytes.
        data: the bytes.
        walker, python, go: whether each parser accepts them.
        why: an explanation for the reader.
    """

    name: str
    data: bytes
    walker: bool
    python: bool
    go: bool
    why: str


CASES = (
    Case("truncated in a varint", bytes.fromhex("18 ff ff"), False, False, False,
         "the last byte says that more follow"),
    Case("truncated in a string", bytes.fromhex("72 05 61 62"), False, False, False,
         "five bytes are announced, but only two follow"),
    Case("a varint of eleven bytes", bytes.fromhex("18" + "ff" * 10 + "01"), False, False, False,
         "64 bits fit ten bytes"),
    Case("wire type 7", bytes.fromhex("1f 01"), False, False, False, "wire types end at 5"),
    Case("a group ends that never began", bytes.fromhex("1c"), False, False, False, "an end tag without a start tag"),
    Case("field number 0", bytes.fromhex("00 01"), False, False, False, "numbers begin at 1"),
    Case("string that is not UTF-8", bytes.fromhex("72 02 ff fe"), True, False, False,
         "well formed on the wire; only the schema says that it is text"),
    Case("wrong wire type for the field", bytes.fromhex("1d 01 00 00 00"), True, True, True,
         "an int32 sent as four bytes: no error, the field keeps its default and the bytes stay as unknown"),
    Case("unknown enum number", bytes.fromhex("80 01 63"), True, True, True, "proto3 enums are open: 99 is kept as 99"),
    Case("unknown field", bytes.fromhex("f8 07 01"), True, True, True, "field 127 is not in the schema: kept"),
    Case("nothing at all", b"", True, True, True, "every field at its default"),
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """The errors of the three parsers; an empty error means accepted."""

    case: Case
    walker: str
    python: str
    go: str

    @property
    def as_expected(self) -> bool:
        """Whether each parser decided as the case predicts."""
        accepted = (not self.walker, not self.python, not self.go)
        return accepted == (self.case.walker, self.case.python, self.case.go)

    @property
    def row(self) -> dict[str, Any]:
        """A row of a table."""
        shown = {"walker": self.walker, "Python (upb)": self.python, "Go": self.go}
        verdicts = {name: f"refuses: {text}" if text else "accepts" for name, text in shown.items()}
        return {"bytes": self.case.data.hex(" ")[:30], "what": self.case.name, **verdicts, "why": self.case.why}


def judge(case: Case, go_program: Path) -> Judgement:
    """Read the bytes with all three parsers.

    Args:
        case: the case with the bytes.
        go_program: the compiled program lessons/wire.
    """
    return Judgement(case, _walker(case.data), _python(case.data), _go(case.data, go_program))


def parses(kind: Any, data: bytes) -> bool:
    """Whether Python's library reads `data` as a message of the class `kind`."""
    try:
        kind.FromString(data)
    except DecodeError:
        return False
    return True


def json_error(kind: Any, text: str) -> str:
    """The error of Python's library for `text` as the JSON of a message of the class `kind`.

    Raises:
        CheckFailed: the library accepts it.
    """
    return str(expect_failure(lambda: json_format.Parse(text, kind()), json_format.ParseError))


def nested(levels: int) -> bytes:
    """A message with one field, number 1, that contains such a message, and so on.

    >>> nested(3).hex(" ")
    '0a 04 0a 02 0a 00'
    """
    data = b""
    for _ in range(levels):
        data = tag(1, WireType.LEN) + encode_varint(len(data)) + data
    return data


def _walker(data: bytes) -> str:
    try:
        walk(data)
    except WireError as error:
        return error.message
    return ""


def _python(data: bytes) -> str:
    try:
        types().Scalars.FromString(data)
    except DecodeError as error:
        return str(error).rpartition("': ")[2]
    return ""


def _go(data: bytes, program: Path) -> str:
    try:
        done = call([str(program), "decode", "lessons.v1.Scalars"], stdin=data, check=False, timeout=20)
    except subprocess.TimeoutExpired as error:  # pragma: no cover - a parser that hangs would be a finding
        raise AssertionError(f"Go's parser hangs on {data.hex()}") from error
    if done.rc == 0:
        return ""
    # Go's library varies the space after "proto:" between builds, so that programs do not depend on its messages.
    return " ".join(done.stderr.replace("\u00a0", " ").split()).removeprefix("wire: ").removeprefix("proto: ")
