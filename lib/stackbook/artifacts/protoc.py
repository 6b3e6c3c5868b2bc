"""protoc: the one bundled with grpcio-tools (pinned by the lock), with the Go plugins that lib/apps/go.mod pins."""

from __future__ import annotations

import functools
import importlib
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from stackbook.analysis.expect import expect_failure
from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import Output, ToolFailed

GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)


@dataclass(frozen=True)
class Protoc:
    """A protoc.

    Args:
        plugins: programs named protoc-gen-*, found by their names as if they were on the PATH.
    """

    plugins: tuple[Path, ...] = field(default=())

    def run(
        self, *args: str | Path, stdin: bytes = b"", check: bool = True, cwd: Path | None = None, wellknown: bool = True
    ) -> Output:
        """Run protoc; the `argv` of what it returns reads as if a plain `protoc` had been called.

        Args:
            args: as for protoc.
            stdin: for --encode and --decode.
            check: raise when it fails.
            cwd: its working folder.
            wellknown: let it find google/protobuf/*.proto.

        Raises:
            ToolFailed: it failed and `check` is set.
        """
        words = [str(arg) for arg in args]
        folders = sorted({str(plugin.parent) for plugin in self.plugins})
        # Not -m grpc_tools.protoc: that always adds its own include folder, and we say when.
        program = "import sys; from grpc_tools import protoc; sys.exit(protoc.main(['protoc', *sys.argv[1:]]))"
        include = [f"-I{_include()}"] if wellknown and any(w.startswith(("-I", "--proto_path")) for w in words) else []
        env = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}
        argv = [sys.executable, "-c", program, *words, *include]
        return go_toolchain.call(argv, shown=("protoc", *words), stdin=stdin, check=check, cwd=cwd, env=env)

    def decode_raw(self, data: bytes) -> str:
        """What protoc makes of bytes without any schema."""
        return self.run("--decode_raw", stdin=data).text

    def encode(self, kind: str, text: str, proto: Path, *, include: Path) -> bytes:
        """Bytes of the message `kind` written in the text format: bytes that none of our code wrote."""
        args = (f"-I{include}", f"--encode={kind}", "--deterministic_output", proto)
        return self.run(*args, stdin=text.encode()).stdout

    def decode(self, kind: str, data: bytes, proto: Path, *, include: Path) -> str:
        """The text format of the bytes of a message `kind`."""
        return self.run(f"-I{include}", f"--decode={kind}", proto, stdin=data).text

    @property
    def version(self) -> str:
        """As `protoc --version` says it, for example libprotoc 35.1."""
        return self.run("--version").text.strip()


def shown(output: Output, *hide: Path) -> str:
    """The command as one pastes it, with the names of folders that differ on each run cut off."""
    text = shlex.join(output.argv)
    for folder in hide:
        text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    return text


def protos() -> Path:
    """The folder of the lab's protos."""
    return go_toolchain.modules() / "proto"


def _include() -> str:
    import grpc_tools

    return str(Path(grpc_tools.__file__).parent / "_proto")


@functools.cache
def with_go() -> Protoc:
    """Protoc with the two Go plugins, compiled from the module that pins them.

    Raises:
        StackbookError: no Go toolchain could be had, or a plugin does not compile.
    """
    return Protoc(plugins=tuple(go_toolchain.toolchain().build(*GO_PLUGINS)))


def descriptors(*files: str, include: Path) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of some protos and of all they import.

    Raises:
        ToolFailed: protoc refuses one.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        Protoc().run(f"-I{include}", "--include_imports", f"--descriptor_set_out={out}", *files)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def schema(body: str, *, header: str = 'syntax = "proto3";', package: str = "lesson") -> Mapping[str, Any]:
    r"""Message classes by name, from a few lines of proto; each call has a pool of its own, so old and new can meet.

    >>> schema("message Point { sint32 x = 1; }")["Point"](x=-1).SerializeToString()
    b'\x08\x01'

    Raises:
        ToolFailed: protoc refuses the text.
    """
    return dict(_schema(f"{header}\npackage {package};\n{body}\n"))


@functools.lru_cache(maxsize=256)
def _schema(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lesson.proto").write_text(text, encoding="utf-8")
        files = descriptors("lesson.proto", include=Path(folder)).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindFileByName("lesson.proto")
    return {m.name: message_factory.GetMessageClass(m) for m in descriptor.message_types_by_name.values()}


def refuse(body: str, *, header: str = 'syntax = "proto3";') -> str:
    """What protoc says against a few lines of proto: its first line, without the file's name and place.

    Raises:
        CheckFailed: it accepts them.
    """
    error = expect_failure(lambda: schema(body, header=header), ToolFailed)
    lines = [line for line in error.output.stderr.splitlines() if "lesson.proto:" in line and "warning" not in line]
    return re.sub(r"^.*?lesson\.proto:(\d+:\d+:)? *", "", lines[0])


def warn(body: str, *, header: str = 'syntax = "proto3";') -> str:
    """What protoc warns of in a few lines of proto that it accepts; empty when it has no objection.

    Raises:
        ToolFailed: it refuses them.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lesson.proto").write_text(f"{header}\npackage lesson;\n{body}\n", encoding="utf-8")
        said = Protoc().run(f"-I{folder}", f"--descriptor_set_out={folder}/set", "lesson.proto").stderr
    # Two forms: "lesson.proto:1:1: warning: …", and a log line of absl's with a time and a place in the source.
    return re.sub(r"^.*?(parser\.cc:\d+\]|lesson\.proto:\d+:\d+:) *(warning: *)?", "", " ".join(said.split()))


def without_imports(proto: Path) -> str:
    """What protoc says first against a proto whose imports cannot be found.

    A proto that compiles all the same gives an empty text.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / proto.name).write_bytes(proto.read_bytes())
        output = Protoc().run(f"-I{folder}", f"-o{folder}/set", proto.name, check=False)
        return output.stderr.strip().partition("\n")[0]


@dataclass(frozen=True)
class GoCode:
    """What protoc and its Go plugins wrote: text by path; or the first line of their error."""

    files: Mapping[str, str]
    error: str
    command: tuple[str, ...]


def go_code(
    *protos: str, include: Path, options: Sequence[str] = (), module: str = "stackbook.dev/apps", grpc: bool = False
) -> GoCode:
    """Go code of some protos, written to a temporary folder; a failure is returned, not raised.

    Args:
        protos: files, relative to `include`.
        include: the folder of the protos.
        options: for --go_opt, and for --go-grpc_opt too.
        module: the Go module whose path is cut off the output's names; empty for none.
        grpc: also write the services.
    """
    with tempfile.TemporaryDirectory() as folder:
        args = [f"-I{include}"]
        for plugin in ("go", "go-grpc") if grpc else ("go",):
            args.append(f"--{plugin}_out={folder}")
            args += [f"--{plugin}_opt={option}" for option in ([f"module={module}"] if module else []) + list(options)]
        output = with_go().run(*args, *protos, check=False)
        root = Path(folder)
        files = {p.relative_to(root).as_posix(): p.read_text("utf-8") for p in sorted(root.rglob("*.go"))}
        error = output.stderr.strip().partition("\n")[0] if output.rc else ""
        return GoCode(files, error, tuple(w.replace(folder, ".") for w in output.argv))


def generated_version(module: ModuleType) -> tuple[int, ...]:
    """The version of the Python library that code imported by `load` was generated for."""
    found = re.search(r"# Protobuf Python Version: ([\d.]+)", module.SOURCE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


@contextmanager
def generated(*files: str, include: Path, grpc: bool = False) -> Iterator[Path]:
    """A temporary folder with the Python code of some protos, importable while the block runs."""
    with tempfile.TemporaryDirectory(prefix="stackbook-pb-") as folder:
        out = [f"--python_out={folder}", f"--pyi_out={folder}", *([f"--grpc_python_out={folder}"] if grpc else [])]
        Protoc().run(f"-I{include}", *out, *files)
        sys.path.insert(0, folder)
        try:
            yield Path(folder)
        finally:
            sys.path.remove(folder)


def load(module: str, *, proto: str, include: Path) -> ModuleType:
    """The generated Python module of a proto, made afresh and imported, unless it has been before."""
    if module in sys.modules:
        return sys.modules[module]
    with generated(proto, include=include):
        importlib.invalidate_caches()
        found = importlib.import_module(module)
        found.SOURCE = Path(str(found.__file__)).read_text("utf-8")  # type: ignore[attr-defined]
        return found
