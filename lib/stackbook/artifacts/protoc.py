"""protoc from grpcio-tools (pinned by the lock file), with the Go plugins that lib/apps/go.mod pins."""

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
from stackbook.core import observed

GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
)


# Not -m grpc_tools.protoc, which always adds its own include folder.
_PROGRAM = "import sys; from grpc_tools import protoc; sys.exit(protoc.main(['protoc', *sys.argv[1:]]))"


def script() -> str:
    """A program `protoc` for a shell: what `Protoc.run` runs, so a command that was shown can be typed."""
    include = shlex.quote(f"-I{_include()}")
    run = shlex.join([sys.executable, "-c", _PROGRAM])
    return (
        '#!/bin/sh\nfor word; do case "$word" in -I* | --proto_path*) '
        f'exec {run} "$@" {include} ;; esac; done\nexec {run} "$@"\n'
    )


@dataclass(frozen=True)
class Protoc:
    """A protoc.

    Args:
        plugins: programs named protoc-gen-*, which protoc finds as if they were on the PATH.
    """

    plugins: tuple[Path, ...] = field(default=())

    def run(
        self, *args: str | Path, stdin: bytes = b"", check: bool = True, cwd: Path | None = None, wellknown: bool = True
    ) -> Output:
        """Run protoc; `argv` of the returned Output shows a plain `protoc` command.

        Args:
            args: as for protoc.
            stdin: for --encode and --decode.
            check: raise ToolFailed if it fails.
            cwd: its working folder.
            wellknown: include the folder with google/protobuf/*.proto.

        Raises:
            ToolFailed: it failed and `check` is set.
        """
        words = [str(arg) for arg in args]
        folders = sorted({str(plugin.parent) for plugin in self.plugins})
        include = [f"-I{_include()}"] if wellknown and any(w.startswith(("-I", "--proto_path")) for w in words) else []
        env = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}
        argv = [sys.executable, "-c", _PROGRAM, *words, *include]
        return go_toolchain.call(argv, shown=("protoc", *words), stdin=stdin, check=check, cwd=cwd, env=env)

    def decode_raw(self, data: bytes) -> str:
        """How protoc decodes bytes without a schema."""
        return self.run("--decode_raw", stdin=data).text

    def encode(self, kind: str, text: str, proto: Path, *, include: Path) -> bytes:
        """Encode a message `kind` from the text format with protoc, so that the bytes do not come from stackbook's own code."""
        args = (f"-I{include}", f"--encode={kind}", "--deterministic_output", proto)
        return self.run(*args, stdin=text.encode()).stdout

    def decode(self, kind: str, data: bytes, proto: Path, *, include: Path) -> str:
        """Decode the bytes of a message `kind` into the text format."""
        return self.run(f"-I{include}", f"--decode={kind}", proto, stdin=data).text

    @property
    def version(self) -> str:
        """The version as `protoc --version` prints it, for example libprotoc 35.1."""
        return self.run("--version").text.strip()


def shown(output: Output, *hide: Path) -> str:
    """The command as a user would type it, without the names of folders that differ on each run."""
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
    """A protoc with the two Go plugins, which are compiled from the module that pins them.

    Raises:
        StackbookError: the Go toolchain cannot be obtained, or a plugin does not compile.
    """
    return Protoc(plugins=tuple(go_toolchain.toolchain().build(*GO_PLUGINS)))


def descriptors(*files: str, include: Path) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of some protos and of all their imports.

    Raises:
        ToolFailed: protoc refuses a proto.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        Protoc().run(f"-I{include}", "--include_imports", f"--descriptor_set_out={out}", *files)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def schema(body: str, *, header: str = 'syntax = "proto3";', package: str = "lesson") -> Mapping[str, Any]:
    r"""Message classes by name, from a few lines of proto. Each call has its own pool, so old and new versions can coexist.

    >>> schema("message Point { sint32 x = 1; }")["Point"](x=-1).SerializeToString()
    b'\x08\x01'

    Raises:
        ToolFailed: protoc refuses the text.
    """
    return dict(_schema(f"{header}\npackage {package};\n{body}\n"))


@functools.lru_cache(maxsize=256)
def _schema(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "lesson.proto", text)
        files = descriptors("lesson.proto", include=Path(folder)).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindFileByName("lesson.proto")
    return {m.name: message_factory.GetMessageClass(m) for m in descriptor.message_types_by_name.values()}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    observed.wrote(path, text)


def refuse(body: str, *, header: str = 'syntax = "proto3";') -> str:
    """Why protoc refuses a few lines of proto: the first line of its error, without file name and position.

    Raises:
        CheckFailed: it accepts them.
    """
    error = expect_failure(lambda: schema(body, header=header), ToolFailed)
    lines = [line for line in error.output.stderr.splitlines() if "lesson.proto:" in line and "warning" not in line]
    return re.sub(r"^.*?lesson\.proto:(\d+:\d+:)? *", "", lines[0])


def warn(body: str, *, header: str = 'syntax = "proto3";') -> str:
    """The warning of protoc about a few lines of proto that it accepts; empty if there is none.

    Raises:
        ToolFailed: it refuses them.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "lesson.proto", f"{header}\npackage lesson;\n{body}\n")
        said = Protoc().run(f"-I{folder}", f"--descriptor_set_out={folder}/set", "lesson.proto").stderr
    # Two formats: "lesson.proto:1:1: warning: …", and a log line of absl with a time and a position in the source.
    return re.sub(r"^.*?(parser\.cc:\d+\]|lesson\.proto:\d+:\d+:) *(warning: *)?", "", " ".join(said.split()))


def without_imports(proto: Path) -> str:
    """The first line of protoc's error for a proto whose imports cannot be found; empty if the proto compiles."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / proto.name).write_bytes(proto.read_bytes())
        output = Protoc().run(f"-I{folder}", f"-o{folder}/set", proto.name, check=False)
        return output.stderr.strip().partition("\n")[0]


@dataclass(frozen=True)
class GoCode:
    """The output of protoc and its Go plugins: path → text, or the first line of their error."""

    files: Mapping[str, str]
    error: str
    command: tuple[str, ...]


def go_code(
    *protos: str, include: Path, options: Sequence[str] = (), module: str = "stackbook.dev/apps", grpc: bool = False
) -> GoCode:
    """Generate Go code from some protos in a temporary folder; returns a failure instead of raising it.

    Args:
        protos: files, relative to `include`.
        include: the folder of the protos.
        options: options for --go_opt and --go-grpc_opt.
        module: the Go module whose path is removed from the output's names; empty for none.
        grpc: also generate the services.
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
    """The version of the Python library for which the code imported by `load` was generated."""
    found = re.search(r"# Protobuf Python Version: ([\d.]+)", module.SOURCE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


@contextmanager
def generated(*files: str, include: Path, grpc: bool = False) -> Iterator[Path]:
    """Generate Python code from some protos in a temporary folder, which can be imported while the block runs."""
    with tempfile.TemporaryDirectory(prefix="stackbook-pb-") as folder:
        out = [f"--python_out={folder}", f"--pyi_out={folder}", *([f"--grpc_python_out={folder}"] if grpc else [])]
        Protoc().run(f"-I{include}", *out, *files)
        sys.path.insert(0, folder)
        try:
            yield Path(folder)
        finally:
            sys.path.remove(folder)


def load(module: str, *, proto: str, include: Path) -> ModuleType:
    """Generate the Python module of a proto and import it, unless that has been done before."""
    if module in sys.modules:
        return sys.modules[module]
    with generated(proto, include=include):
        importlib.invalidate_caches()
        found = importlib.import_module(module)
        found.SOURCE = Path(str(found.__file__)).read_text("utf-8")  # type: ignore[attr-defined]
        return found
