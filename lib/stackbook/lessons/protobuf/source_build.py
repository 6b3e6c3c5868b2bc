"""protobuf built from Debian's source package: the record of the build, and the protoc that it installed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.artifacts import go_toolchain, protoc
from stackbook.artifacts.source_builds import RECORD
from stackbook.core import temp_dirs

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

COMPONENT = "protobuf-source"
PREFIX = "usr/local/protobuf"
_ORDER = "message Order { int32 id = 1; repeated string items = 2; bool paid = 3; }"
_PASSED, _FAILED = (
    re.compile(r"\[  PASSED  \] (\d+) tests?\."),
    re.compile(r"\[  FAILED  \] (\d+) tests?, listed below"),
)


@dataclass(frozen=True)
class Built:
    """A build.

    Attributes:
        source: the source package and its version.
        tree: the names at the top of the sources.
        steps: command, seconds, and the name of its log, of each step.
        passed: how many tests of GoogleTest passed.
        failed: how many failed.
        prefix: the copy of /usr/local/protobuf.
    """

    source: str
    tree: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...]
    passed: int
    failed: int
    prefix: Path

    @property
    def protoc(self) -> Path:
        """The compiler that was installed."""
        return self.prefix / "bin" / "protoc"

    def version(self) -> str:
        """What `protoc --version` prints."""
        return go_toolchain.call(
            [str(self.protoc), "--version"], shown=("/usr/local/protobuf/bin/protoc", "--version")
        ).text.strip()

    def encode(self, schema: Path, message: str, text: str) -> bytes:
        """The bytes of a message that is given as text (`protoc --encode`).

        Args:
            schema: the .proto file.
            message: the full name of the message's type.
            text: the message in the text format, https://protobuf.dev/reference/protobuf/textformat-spec .
        """
        argv = [f"--encode={message}", f"--proto_path={schema.parent}", schema.name]
        shown = ("/usr/local/protobuf/bin/protoc", f"--encode={message}", schema.name)
        return go_toolchain.call([str(self.protoc), *argv], shown=shown, stdin=text.encode()).stdout

    def pkg_config(self) -> dict[str, str]:
        """The fields and variables of lib/pkgconfig/protobuf.pc, which the guide's PKG_CONFIG_PATH leads to."""
        text = (self.prefix / "lib" / "pkgconfig" / "protobuf.pc").read_text(encoding="utf-8")
        return {name: value.strip() for name, value in re.findall(r"^(\w+)(?:=|: )(.*)$", text, re.MULTILINE)}


def read(folder: Path) -> Built:
    """Read what a build left, as `artifacts.source_builds` keeps it."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    logs = [(folder / "log" / step["log"]).read_text(encoding="utf-8", errors="replace") for step in record["steps"]]
    passed, failed = (sum(int(n) for n in pattern.findall("".join(logs))) for pattern in (_PASSED, _FAILED))
    return Built(record["source"], tuple(record["tree"]), tuple(record["steps"]), passed, failed, folder / PREFIX)


def at_hand(artifacts: Resolver) -> Built | None:
    """The build that is in the cache; None if there is none. Nothing is built here, because that takes minutes."""
    folder = artifacts.at_hand(COMPONENT)
    return read(folder) if folder else None


def same_message(built: Built) -> tuple[bytes, bytes]:
    """The bytes of one message as the protoc that was built writes them, and as Python does with the wheel's protoc."""
    with temp_dirs.folder("encode") as folder:
        file = folder / "order.proto"
        file.write_text(f'syntax = "proto3";\npackage lesson;\n{_ORDER}\n', encoding="utf-8")
        theirs = built.encode(file, "lesson.Order", 'id: 150 items: "tea" items: "bread" paid: true')
    ours = protoc.schema(_ORDER)["Order"](id=150, items=["tea", "bread"], paid=True).SerializeToString()
    return theirs, ours


def rows(built: Built) -> list[dict[str, Any]]:
    """The steps as a table: the guide's command, today's, how long it took in seconds, and what it said."""
    guide = ("", "./configure --prefix=/usr/local/protobuf", "make", "make check", "make install")
    said = {"make check": f"{built.passed} tests passed, {built.failed} failed"}
    return [
        {"the guide": old, "run": step["command"], "s": step["seconds"], "result": said.get(old, "done")}
        for old, step in zip(guide, built.steps, strict=True)
    ]
