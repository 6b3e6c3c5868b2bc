"""The style rules of protobuf's own guide, checked on descriptors, under the names that buf gives to the same rules.

This is not buf: it has the rules of buf's STANDARD set that need nothing but the descriptors.
https://protobuf.dev/programming-guides/style/, https://buf.build/docs/lint/rules/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts.protoc import descriptors

_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
_UPPER = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_VERSION = re.compile(r"v\d+((alpha|beta)\d*|p\d+(alpha|beta)\d*)?|v\d+test.*")


@dataclass(frozen=True, order=True)
class Finding:
    """One breach of a rule."""

    file: str
    rule: str
    name: str


def lint(*files: str, include: Path) -> list[Finding]:
    """What the rules say against some protos, sorted.

    Raises:
        ToolFailed: a file does not compile.
    """
    wanted = descriptors(*files, include=include)
    return sorted(f for file in wanted.file if file.name in files for f in _file(file))


def _file(file: Any) -> Iterator[Finding]:
    def bad(rule: str, name: str) -> Finding:
        return Finding(file.name, rule, name)

    folder = str(Path(file.name).parent).replace("/", ".").strip(".")
    if not file.package:
        yield bad("PACKAGE_DEFINED", file.name)
    elif folder != file.package:
        yield bad("PACKAGE_DIRECTORY_MATCH", file.package)
    if file.package and not all(_SNAKE.fullmatch(part) for part in file.package.split(".")):
        yield bad("PACKAGE_LOWER_SNAKE_CASE", file.package)
    if file.package and not _VERSION.fullmatch(file.package.rpartition(".")[2]):
        yield bad("PACKAGE_VERSION_SUFFIX", file.package)
    if not _SNAKE.fullmatch(Path(file.name).stem):
        yield bad("FILE_LOWER_SNAKE_CASE", file.name)
    if not file.syntax and not file.HasField("edition"):
        yield bad("SYNTAX_SPECIFIED", file.name)
    if file.public_dependency:
        yield bad("IMPORT_NO_PUBLIC", file.name)
    for rule, name in [*_messages(file.message_type), *_enums(file.enum_type), *_services(file.service)]:
        yield bad(rule, name)


def _messages(messages: Any) -> Iterator[tuple[str, str]]:
    for message in messages:
        if message.options.map_entry:
            continue
        if not _PASCAL.fullmatch(message.name):
            yield "MESSAGE_PASCAL_CASE", message.name
        for field in message.field:
            if not _SNAKE.fullmatch(field.name):
                yield "FIELD_LOWER_SNAKE_CASE", f"{message.name}.{field.name}"
        for oneof in message.oneof_decl:
            if not oneof.name.startswith("_") and not _SNAKE.fullmatch(oneof.name):  # _x is made by `optional`
                yield "ONEOF_LOWER_SNAKE_CASE", f"{message.name}.{oneof.name}"
        yield from _messages(message.nested_type)
        yield from _enums(message.enum_type)


def _enums(enums: Any) -> Iterator[tuple[str, str]]:
    for enum in enums:
        if not _PASCAL.fullmatch(enum.name):
            yield "ENUM_PASCAL_CASE", enum.name
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
        for value in enum.value:
            if not _UPPER.fullmatch(value.name):
                yield "ENUM_VALUE_UPPER_SNAKE_CASE", f"{enum.name}.{value.name}"
            if not value.name.startswith(prefix):
                yield "ENUM_VALUE_PREFIX", f"{enum.name}.{value.name}"
            if value.number == 0 and not value.name.endswith("_UNSPECIFIED"):
                yield "ENUM_ZERO_VALUE_SUFFIX", f"{enum.name}.{value.name}"


def _services(services: Any) -> Iterator[tuple[str, str]]:
    for service in services:
        if not _PASCAL.fullmatch(service.name):
            yield "SERVICE_PASCAL_CASE", service.name
        if not service.name.endswith("Service"):
            yield "SERVICE_SUFFIX", service.name
        for rpc in service.method:
            if not _PASCAL.fullmatch(rpc.name):
                yield "RPC_PASCAL_CASE", f"{service.name}.{rpc.name}"
            for rule, given, suffix in (
                ("RPC_REQUEST_STANDARD_NAME", rpc.input_type, "Request"),
                ("RPC_RESPONSE_STANDARD_NAME", rpc.output_type, "Response"),
            ):
                if given.rpartition(".")[2] not in (f"{rpc.name}{suffix}", f"{service.name}{rpc.name}{suffix}"):
                    yield rule, f"{service.name}.{rpc.name}"
