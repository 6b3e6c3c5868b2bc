"""Build programs from Go modules: verified by go.sum, reproducible with -trimpath, with progress and the cause of a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.artifacts.build_queue import free_memory
from stackbook.artifacts.catalogue import Group
from stackbook.artifacts.digests import key_of
from stackbook.artifacts.sources import Build
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, InputError
from stackbook.core.progress import Progress, Report

# All groups have the same cgo setting, because packages with another setting would be compiled a second time. With netgo
# and osusergo, name look-ups do not use glibc, so programs can be linked statically.
TAGS = "netgo,osusergo"
_LDFLAGS = ("-s", "-w")
_STATIC = "-extldflags=-static"
# The linker leaves out debugging data (-s -w), so the compiler need not make it. That saves a quarter of the processor time for
# the same programs. Only their build information differs, by this flag, so the flag is not part of the key.
_GCFLAGS = "all=-dwarf=false"
# Garbage collection takes a quarter of the compiler's time; if there is enough memory, it runs only above this limit (per process).
_GC, _MEMORY_FOR_GC = {"GOGC": "off", "GOMEMLIMIT": "2GiB"}, 8 << 30
_NETWORK = re.compile(
    r"dial tcp|no such host|connection (refused|reset)|TLS handshake|403 Forbidden|i/o timeout|proxyconnect"
)


def environment(*, goroot: Path, cache: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The user's environment (with GOPROXY, GONOSUMDB, GOFLAGS …), this toolchain and the lab's build cache."""
    flags = " ".join(filter(None, [base.get("GOFLAGS", ""), "-buildvcs=false"]))
    return {
        **base,
        "PATH": f"{goroot / 'bin'}:{base.get('PATH', '/usr/bin:/bin')}",
        "GOROOT": str(goroot),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": flags,
        "GOCACHE": str(cache / "build" / "gocache"),
        "GOMODCACHE": str(cache / "build" / "gomod"),
        "CGO_ENABLED": "1",
        "GOOS": "linux",
        "GOARCH": "amd64",
    }


def ldflags(group: Group) -> str:
    """The linker's flags: stripped, static, and the variables of the group.

    >>> ldflags(Group("g", Path("."), 1, {"a/b.version": "v1"}))
    '-s -w -X a/b.version=v1 -extldflags=-static'
    """
    variables = [f"-X {variable}={value}" for variable, value in group.ldflags.items()]
    return " ".join([*_LDFLAGS, *variables, _STATIC])


def tags(group: Group) -> str:
    """The build tags: those of all groups, and the group's own."""
    return ",".join([TAGS, *group.tags])


def recipe_key(group: Group, build: Build, *, go_sha256: str, sources: str) -> str:
    """The key of one output: a hash of the compiler, the module files, the flags and the package."""
    flags = [tags(group), ldflags(group), "trimpath"]
    return key_of("go-1", go_sha256, sources, flags, [build.package, build.module, build.path])


@dataclass(frozen=True)
class Built:
    """The path of each output, and the share of packages that were compiled (the others were in Go's cache)."""

    paths: Mapping[Build, Path]
    share: float


@dataclass
class _Watch:
    """Turns the compiler's output into progress and, after a failure, into its cause."""

    job: str
    report: Report
    total: int
    estimate: float
    compiled: int = 0
    last: str = ""
    errors: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        if text.startswith("go: downloading"):
            self.last = text.removeprefix("go: ")
        elif re.fullmatch(r"[\w.\-~/]+", text):
            self.compiled += 1
            self.last = text
        elif "warning: Using 'dlopen'" not in text and "in function `" not in text and not text.startswith("# "):
            self.errors.append(text.strip())

    def tick(self, seconds: float) -> None:
        by_count = self.compiled / self.total if self.total else 0.0
        by_time = min(seconds / self.estimate, 0.98) if self.estimate else 0.0
        share = max(by_count, by_time)
        remaining = seconds * (1 - share) / share if by_count > by_time > 0 else max(self.estimate - seconds, 1.0)
        self.report(
            Progress(self.job, "build", self.compiled, self.total, "packages", seconds, remaining, self.last[-60:])
        )


def build(
    group: Group, builds: Iterable[Build], *, goroot: Path, cache: Path, out: Path, log: Path, report: Report,
    estimate: float, cancel: threading.Event, run: Spawn = spawn, env: Mapping[str, str] | None = None,
    background: bool = False,
) -> Built:  # fmt: skip
    """Build packages of a group into `out`, and copy the module files that it names; returns their paths.

    After an interrupt, the next build continues from Go's cache. With `background`, the build has a low priority.

    Raises:
        InputError: there is no C compiler.
        ArtifactUnavailable: modules could not be downloaded.
        ArtifactError: a package does not compile; the message has the first lines of the error and the log's path.
    """
    wanted = list(builds)
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        raise InputError(
            "there is no C compiler, which building from Go modules needs", fix="apt-get install gcc libc6-dev"
        )
    environ = environment(goroot=goroot, cache=cache, base=env if env is not None else os.environ)
    if free_memory() > _MEMORY_FOR_GC and not _GC.keys() & environ.keys():
        environ |= _GC
    out.mkdir(parents=True, exist_ok=True)
    packages = [item.package for item in wanted if item.package]
    job = f"go:{group.name}"
    start, share = time.monotonic(), 0.0
    if packages:
        report(Progress(job, "build", message="modules", remaining=estimate))
        watch = _Watch(job, report, _count(packages, group, environ), estimate)
        argv = [
            "go", "build", "-v", "-trimpath", "-tags", tags(group), "-gcflags", _GCFLAGS, "-ldflags", ldflags(group),
            "-o", f"{out}/", *packages,
        ]  # fmt: skip
        argv[0] = str(goroot / "bin" / "go")
        argv = ["nice", "-n", "10", *argv] if background else argv
        status = run(
            argv, env=environ, cwd=group.folder, log=log, on_line=watch.line, on_tick=watch.tick, cancel=cancel
        )
        if status != 0:
            raise failure(group.name, watch.errors, log)
        share = watch.compiled / watch.total if watch.total else 1.0
    found: dict[Build, Path] = {}
    for item in wanted:
        path = out / item.output if item.package else _copy(item, group, environ, out)
        if not path.exists():
            raise ArtifactError(f"go build of {group.name} left no {item.output} (log: {log})")
        found[item] = path
    report(Progress(job, "build", seconds=time.monotonic() - start, remaining=0))
    return Built(found, share)


def failure(name: str, errors: list[str], log: Path) -> ArtifactError:
    """The error for a failed build, from the first lines of the compiler's errors."""
    text = " / ".join(errors[:3]) or "no message"
    message = f"go build of {name} failed: {text} (log: {log})"
    everything = "\n".join(errors)
    if _NETWORK.search(everything):
        return ArtifactUnavailable(message, fix="check the network and GOPROXY; what was downloaded stays")
    if "no space left" in everything:
        return ArtifactError(message, fix="free some disk, or set STACKBOOK_CACHE to a larger one")
    if "checksum mismatch" in everything:
        return ArtifactError(message, fix="a module is not what go.sum says: check GOPROXY")
    return ArtifactError(message, fix="see the log")


def _count(packages: list[str], group: Group, env: Mapping[str, str]) -> int:
    """How many packages the build has; 0 if that is not known. Downloads modules as a side effect."""
    go = f"{env['GOROOT']}/bin/go"
    if not Path(go).exists():
        return 0
    argv = [go, "list", "-deps", "-tags", tags(group), "-f", "{{.ImportPath}}", *packages]
    answer = subprocess.run(argv, cwd=group.folder, env=dict(env), capture_output=True, text=True, check=False)
    return len(answer.stdout.splitlines())


def module_folder(module: str, group: Group, env: Mapping[str, str]) -> Path:
    """The folder of a module that the group uses, downloaded and unpacked if necessary, and verified by go.sum.

    Raises:
        ArtifactError: it could not be obtained; the message has Go's own words.
    """
    argv = [f"{env['GOROOT']}/bin/go", "mod", "download", "-json", module]
    subprocess.run(argv, cwd=group.folder, env=dict(env), capture_output=True, check=False)
    argv = [argv[0], "list", "-m", "-f", "{{.Dir}}", module]
    answer = subprocess.run(argv, cwd=group.folder, env=dict(env), capture_output=True, text=True, check=False)
    folder = answer.stdout.strip()
    if not folder:
        raise failure(group.name, answer.stderr.strip().splitlines(), group.folder / "go.mod")
    return Path(folder)


def _copy(item: Build, group: Group, env: Mapping[str, str], out: Path) -> Path:
    source, target = module_folder(item.module, group, env) / item.path, out / Path(item.path).name
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        for path in [target, *target.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    else:
        target.write_bytes(source.read_bytes())
    return target


def trim(cache: Path, *, keep: int) -> int:
    """Trim Go's build cache to `keep` bytes, least recently used entries first; returns the bytes freed.

    Go updates the time of an entry when it uses the entry, and compiles a package again if its entry is gone.
    """
    files = []
    for path in (cache / "build" / "gocache").glob("??/*"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    excess = freed = sum(size for _, size, _ in files) - keep
    for _, size, path in sorted(files):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
    return max(freed - excess, 0)


def trim_modules(cache: Path, *, keep: int) -> int:
    """Remove unpacked modules until they take no more than `keep` bytes, oldest first; returns the bytes freed.

    Their zips stay, so a later build can unpack them again without the network.
    """
    root = cache / "build" / "gomod"
    found = []
    for top, folders, _ in os.walk(root):
        here = Path(top)
        if here == root and "cache" in folders:
            folders.remove("cache")
        for name in [name for name in folders if "@" in name]:
            folders.remove(name)
            found.append((*_size(here / name), here / name))
    excess = freed = sum(size for _, size, _ in found) - keep
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        for top, _, _ in os.walk(path):  # Go makes them read-only
            Path(top).chmod(0o755)
        shutil.rmtree(path)
        excess -= size
    return max(freed - excess, 0)


def _size(folder: Path) -> tuple[float, int]:
    """When a folder was created, and the size of its files in bytes."""
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return folder.stat().st_mtime, sum(path.lstat().st_size for path in files)
