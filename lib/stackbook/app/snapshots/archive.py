"""Packing a folder into one compressed file with a checksum, and unpacking it with owners, modes, times, attributes, links, holes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import IOBase
from pathlib import Path
from typing import IO, Any, cast

from stackbook.core.errors import HostUnfit, StackbookError, WaitTimeout

# Overlay file systems' marks in `trusted.*` (a folder that hides another) and file capabilities are extended attributes.
_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--format=posix")
_BLOCK = 1 << 20


def demand_tools() -> None:
    """Refuse a host that lacks tar or zstd.

    Raises:
        HostUnfit: one of them is missing; the error names it.
    """
    for name in ("tar", "zstd"):
        if not shutil.which(name):
            raise HostUnfit(f"{name} is not installed", fix=f"apt-get install {name}")


@dataclass(frozen=True)
class Packed:
    """A file that was written: its size and its checksum."""

    size: int
    sha256: str


def collect(folder: Path, file: Path, *, names: Sequence[str] = (".",), timeout: float) -> int:
    """Write a folder into a new file that only its owner can read, as fast as possible; returns the file's size.

    The folder must not change meanwhile: a changing file is an error. Sockets are left out, because their servers recreate them.

    Args:
        folder: the folder to read.
        file: the file to create.
        names: the entries of the folder to include.
        timeout: deadline in seconds.

    Raises:
        StackbookError: tar failed.
        WaitTimeout: the deadline passed.
    """
    make = [*_TAR, "--create", "--sparse", "--one-file-system", "--warning=no-file-ignored", "-C", str(folder)]
    with _new(file) as target, _pipe([[*make, "--", *names]], timeout, into=target):
        pass
    return file.stat().st_size


def compress(file: Path, target: Path, *, timeout: float) -> Packed:
    """Compress a file into a new one that only its owner can read, and remove the original.

    Raises:
        StackbookError: zstd failed.
        WaitTimeout: the deadline passed.
    """
    size, digest = 0, hashlib.sha256()
    with _new(target) as out, _pipe([["zstd", "-q", "-1", "-c", str(file)]], timeout) as source:
        while block := source.read(_BLOCK):
            out.write(block)
            digest.update(block)
            size += len(block)
        out.flush()
        os.fsync(out.fileno())
    file.unlink()
    return Packed(size, digest.hexdigest())


def unpack(file: Path, folder: Path, *, timeout: float) -> None:
    """Unpack a compressed archive into an existing folder.

    Raises:
        StackbookError: tar or zstd failed.
        WaitTimeout: the deadline passed.
    """
    take = [*_TAR, "--extract", "--same-owner", "--same-permissions", "-C", str(folder)]
    with _pipe([["zstd", "-q", "-d", "-c", str(file)], take], timeout) as said:
        said.read()


def _new(file: Path) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


@contextlib.contextmanager
def _pipe(commands: Sequence[Sequence[str]], timeout: float, *, into: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Run a pipeline of commands while the block runs; afterwards, it is an error if one of them failed.

    Yields the last one's output; with `into`, the output goes there.
    """
    names = " and ".join(argv[0] for argv in commands)
    late = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        late.set()
        for process in started:
            process.kill()

    watch = threading.Timer(timeout, end)
    with tempfile.TemporaryFile() as errors:
        try:
            for argv in commands:
                source = started[-1].stdout if started else subprocess.DEVNULL
                last = into is not None and argv is commands[-1]
                started.append(_started(argv, source, into if last else subprocess.PIPE, errors))
                if isinstance(source, IOBase):
                    source.close()  # this process's copy: the next command has its own
            watch.start()
            yield started[-1].stdout or cast("IO[bytes]", into)
            codes = [process.wait(timeout) for process in started]
        finally:
            watch.cancel()
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait(10)
                if process.stdout:
                    process.stdout.close()
        errors.seek(0)
        said = " | ".join(errors.read().decode(errors="replace").strip().splitlines()[-2:])
    if late.is_set():
        raise WaitTimeout(f"{names} to end", timeout, last=said)
    if any(codes):
        name = next(argv[0] for argv, code in zip(commands, codes, strict=True) if code)
        raise StackbookError(f"{name} failed: {said or 'no output'}")


def _started(argv: Sequence[str], source: Any, target: Any, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    plain = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.Popen(argv, stdin=source, stdout=target, stderr=errors, env=plain)
    except FileNotFoundError:
        raise HostUnfit(f"{argv[0]} is not installed", fix=f"apt-get install {argv[0]}") from None
