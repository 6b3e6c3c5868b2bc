"""Protos that import each other: which layouts of Go packages compile, and the compiler's errors for the others."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts import go_toolchain, protoc
from stackbook.artifacts.go_toolchain import Output
from stackbook.core import observed
from stackbook.lessons.grpc.guide import scratch_module

MODULE = "example.com/colours"
FILES = ("a/red.proto", "a/green.proto", "b/red.proto", "b/green.proto")


@dataclass(frozen=True)
class Layout:
    """One way to distribute the guide's four files over Go packages.

    Attributes:
        name: the name for the table.
        packages: the Go package of each file, relative to the module.
        builds: whether it is expected to compile.
        says: the error that the compiler must print otherwise.
        source_relative: put each output beside its proto instead of into its package's folder.
    """

    name: str
    packages: Mapping[str, str]
    builds: bool
    says: str = ""
    source_relative: bool = False


def _each(pattern: str) -> dict[str, str]:
    return {file: pattern.format(folder=file[0], colour=file[2:].removesuffix(".proto")) for file in FILES}


_REGROUPED = {"a/red.proto": "first", "b/green.proto": "first", "a/green.proto": "second", "b/red.proto": "second"}

LAYOUTS = (
    Layout("a folder is a package", _each("{folder}"), False, "import cycle not allowed"),
    Layout("every file its own package", _each("{folder}/{colour}"), True),
    Layout("a/red with b/green, a/green with b/red", _REGROUPED, True),
    Layout("the same, with paths=source_relative", _REGROUPED, False, "found packages", source_relative=True),
    Layout("all in one package", _each("all"), False, "write the same file twice"),
)


@dataclass(frozen=True)
class Tried:
    """A layout after protoc and the compiler."""

    layout: Layout
    files: tuple[str, ...]
    builds: bool
    says: str

    @property
    def as_expected(self) -> bool:
        """Whether the result is as the layout predicts."""
        return self.builds == self.layout.builds and self.layout.says in self.says

    @property
    def row(self) -> dict[str, Any]:
        """A row of a table."""
        return {
            "layout": self.layout.name,
            "files": "\n".join(self.files),
            "go build": "builds" if self.builds else self.says,
        }


def attempt(layout: Layout) -> Tried:
    """Generate the Go code of a layout with protoc in a temporary module, and compile it."""
    with scratch_module(MODULE) as root:
        options = [f"--go_opt=M{file}={MODULE}/{package}" for file, package in layout.packages.items()]
        where = "paths=source_relative" if layout.source_relative else f"module={MODULE}"
        include = protoc.protos() / "guide" / "layout"
        args = (f"-I{include}", f"--go_out={root}", f"--go_opt={where}", *options, *FILES)
        made = protoc.with_go().run(*args, check=False)
        if made.rc:
            return Tried(layout, (), False, f"protoc: {made.stderr.splitlines()[0]}")
        files = tuple(sorted(path.relative_to(root).as_posix() for path in root.rglob("*.pb.go")))
        built = go_toolchain.toolchain().run("build", "./...", cwd=root, check=False)
        return Tried(layout, files, built.rc == 0, _first(built, root))


def _first(built: Output, root: Path) -> str:
    """The line of an error that says what is wrong, without the temporary folder's name."""
    text = built.stderr.replace(f"{root}/", "").replace(str(root), ".")
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    telling = [line for line in lines if re.search(r"cycle|found packages", line)]
    return re.sub(r"^package |^imports \S+ from \S+: ", "", (telling or lines or [""])[0])


def proto_cycle() -> str:
    """Protoc's error for two files that import each other, whatever their packages."""
    with tempfile.TemporaryDirectory() as folder:
        for name, other in (("one", "two"), ("two", "one")):
            text = f'syntax = "proto3";\nimport "{other}.proto";\n'
            path = Path(folder) / f"{name}.proto"
            path.write_text(text, encoding="utf-8")
            observed.wrote(path, text)
        output = protoc.Protoc().run(f"-I{folder}", f"-o{folder}/set", "one.proto", check=False)
        found = re.search(r"File recursively imports itself: .*", output.stderr)
        return found[0] if found else ""


@dataclass(frozen=True)
class Clone:
    """The guide's commands in grpc-go's tree.

    Attributes:
        example: whether the example's folders exist.
        install_error: the error of `go install ../../cmd/protoc-gen-go-grpc`.
        as_printed, today: the files that the guide's protoc command, and today's, write.
    """

    example: bool
    install_error: str
    as_printed: tuple[str, ...]
    today: tuple[str, ...]


EXAMPLES = ("google.golang.org/grpc/examples", "v0.0.0-20260825154716-030ee8becb20")
_SERVICE_CONFIG = "Mgrpc/service_config/service_config.proto=/internal/proto/grpc_service_config"


def clone() -> Clone:
    """Run the guide's commands in the example of grpc-go.

    The tree is assembled from the Go modules that the repository publishes, verified by go.sum: the same files as in
    a git clone, without GitHub.

    Raises:
        ToolFailed: the modules could not be obtained.
    """
    go = go_toolchain.toolchain()
    source = _module(*EXAMPLES)
    with tempfile.TemporaryDirectory(prefix="stackbook-clone-") as folder:
        root = Path(folder) / "grpc-go"
        for file in ("go.mod", "go.sum", *(str(p.relative_to(source)) for p in source.rglob("helloworld/**/*.*"))):
            target = root / "examples" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / file).read_bytes())
        replaced = re.findall(r"^replace (\S+) => \.\./(\S*)", (source / "go.mod").read_text("utf-8"), re.MULTILINE)
        for module, place in [*replaced, ("google.golang.org/grpc/cmd/protoc-gen-go-grpc", "cmd/protoc-gen-go-grpc")]:
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / "go.mod").write_text(f"module {module}\n", encoding="utf-8")
        (root / "cmd/protoc-gen-go-grpc/main.go").write_text("package main\n\nfunc main() {}\n", encoding="utf-8")
        example = root / "examples/helloworld"
        refused = go.run("install", "../../cmd/protoc-gen-go-grpc", cwd=example, check=False)
        written = []
        for name, prefix in (("printed", f"{_SERVICE_CONFIG}:"), ("today", "")):
            out = Path(folder) / name
            out.mkdir()
            args = [f"--go_out={prefix}{out}", f"--go-grpc_out={prefix}{out}"]
            args += ["--go_opt=paths=source_relative", "--go-grpc_opt=paths=source_relative"]
            protoc.with_go().run(f"-I{example}", *args, "helloworld/helloworld.proto")
            written.append(tuple(sorted(p.relative_to(out).as_posix() for p in out.rglob("*.go"))))
        there = (example / "greeter_server").is_dir() and (example / "greeter_client").is_dir()
        return Clone(there, " ".join(refused.stderr.split()), written[0], written[1])


def _module(path: str, version: str) -> Path:
    """The folder of a module in Go's cache; if missing, it is downloaded and verified with the checksum database."""
    cached = Path(go_toolchain.toolchain().environment["GOMODCACHE"]) / f"{path}@{version}"
    if not cached.is_dir():
        go_toolchain.toolchain().run("mod", "download", f"{path}@{version}")
    return cached
