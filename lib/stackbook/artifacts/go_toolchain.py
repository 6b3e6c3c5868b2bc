"""The lab's Go toolchain, for chapters that compile Go; `stackbook fetch go` gets it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stackbook.core import observed, paths
from stackbook.core.errors import StackbookError
from stackbook.core.redact import MASK, Secret


class ToolFailed(StackbookError):
    """A compiler, or a program that it compiled, failed; has its `Output`."""

    def __init__(self, output: Output) -> None:
        self.output = output
        tail = "\n".join((output.stderr.strip() or output.text.strip()).splitlines()[-12:])
        super().__init__(f"{' '.join(output.argv)} failed with status {output.rc}\n{tail}")


@dataclass(frozen=True)
class Output:
    """What a tool did. Unlike in `core.results.Result`, stdout is bytes, which protobuf needs; it can be hidden as there."""

    argv: tuple[str, ...]
    rc: int
    stdout: bytes
    stderr: str
    hidden: Secret | None = None

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode(errors="replace")

    def reveal(self) -> str:
        """Stdout as text, even if it is hidden."""
        return self.text if self.hidden is None else self.hidden.reveal()


def call(
    argv: list[str],
    *,
    shown: tuple[str, ...] = (),
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 300.0,
    secret: bool = False,
) -> Output:
    """Run a program to its end.

    Args:
        argv: the command.
        shown: the command to show to the reader; `argv` if empty.
        stdin: bytes for its standard input.
        cwd: its working folder.
        env: its whole environment; None for this process's.
        check: raise ToolFailed if the exit status is not 0.
        timeout: deadline in seconds; then subprocess.TimeoutExpired is raised.
        secret: its output contains a secret, and only `Output.reveal` returns it.

    Raises:
        ToolFailed: the exit status is not 0 and `check` is set.
    """
    run = functools.partial(_run, argv, stdin=stdin, cwd=cwd, env=env, timeout=timeout)
    began = time.monotonic()
    if secret:
        output = _hidden(run)
        if output is None:
            raise subprocess.TimeoutExpired(argv, timeout)  # without its output
    else:
        output = run()
    output = replace(output, argv=shown or tuple(argv))
    observed.tell(
        output.argv, rc=output.rc, stderr=output.stderr, seconds=time.monotonic() - began, given=stdin, folder=cwd
    )
    if check and output.rc:
        raise ToolFailed(output)
    return output


def _run(argv: list[str], *, stdin: bytes, cwd: Path | None, env: Mapping[str, str] | None, timeout: float) -> Output:
    done = subprocess.run(argv, input=stdin, capture_output=True, cwd=cwd, env=env, timeout=timeout, check=False)
    return Output(tuple(argv), done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def _hidden(run: Callable[[], Output]) -> Output | None:
    """Run a tool and hide its output, so that no variable of the caller contains it; returns None after a timeout."""
    try:
        done = run()
    except subprocess.TimeoutExpired:
        return None
    return replace(done, stdout=MASK.encode(), stderr=MASK, hidden=Secret(done.text, remember=False))


def guarded(argv: list[str]) -> list[str]:
    """Wrap the command so that the kernel ends it when this process dies for any reason (prctl(2))."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *argv] if shutil.which("setpriv") else argv


def modules() -> Path:
    """The Go module of the lab's own services."""
    return paths.checkout() / "lib" / "apps"


@dataclass(frozen=True)
class Go:
    """A Go toolchain.

    Args:
        root: its GOROOT.
        bin: the folder for compiled programs, so that the linker runs only after a change.
    """

    root: Path
    bin: Path = field(default_factory=lambda: paths.cache() / "build" / "lessons")

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with this toolchain and the lab's build cache, and without cgo."""
        base = {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GOROOT", "GOPATH")}
        return {
            **base,
            "PATH": f"{self.root / 'bin'}:{base.get('PATH', '/usr/bin:/bin')}",
            "GOROOT": str(self.root),
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOFLAGS": "-trimpath -buildvcs=false",
            "GOCACHE": str(paths.cache() / "build" / "gocache"),
            "GOMODCACHE": str(paths.cache() / "build" / "gomod"),
            "CGO_ENABLED": "0",
        }

    def run(self, *args: str, cwd: Path | None = None, check: bool = True, timeout: float = 600.0) -> Output:
        """Run `go` with these arguments, in the lab's module unless `cwd` says otherwise.

        Raises:
            ToolFailed: it failed and `check` is set.
        """
        argv = [str(self.root / "bin" / "go"), *args]
        folder = cwd or modules()
        return call(argv, shown=("go", *args), cwd=folder, env=self.environment, check=check, timeout=timeout)

    def build(self, *packages: str, cwd: Path | None = None, into: Path | None = None) -> list[Path]:
        """Compile main packages; returns the programs, in the same order.

        Args:
            packages: import paths or ./folders.
            cwd: the module's folder; None for the lab's own.
            into: the folder for the programs; None for the cache.

        Raises:
            ToolFailed: something does not compile.
        """
        folder = into or self.bin
        folder.mkdir(parents=True, exist_ok=True)
        self.run("build", "-o", f"{folder}/", *packages, cwd=cwd)
        return [folder / package.rstrip("/").rsplit("/", 1)[-1] for package in packages]

    def doc(self, name: str, *, cwd: Path | None = None) -> str:
        """The documentation of a package or of a name in it, as `go doc` prints it."""
        return self.run("doc", name, cwd=cwd).text

    @property
    def version(self) -> str:
        """The version as `go version` prints it, for example go1.26.6."""
        return self.run("version").text.split()[2]


@functools.cache
def toolchain() -> Go:
    """The lab's toolchain: `$STACKBOOK_GOROOT` if it is set, otherwise the catalogue's.

    Raises:
        StackbookError: it could not be obtained.
    """
    if chosen := os.environ.get("STACKBOOK_GOROOT"):
        return Go(Path(chosen))
    from stackbook.artifacts.resolver import Resolver

    return Go(Path(Resolver.open().path("go")))
