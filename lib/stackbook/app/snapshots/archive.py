"""A tree of files as one compressed file with its checksum, and back: owners, modes, times, extended attributes, hard links, holes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from stackbook.core.errors import HostUnfit, StackbookError, WaitTimeout

# What overlay file systems keep in `trusted.*` (a folder that hides another) and file capabilities are extended attributes.
_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--format=posix")
_BLOCK = 1 << 20


def demand_tools() -> None:
    """Refuse a host that lacks tar or zstd.

    Raises:
        HostUnfit: names it.
    """
    for name in ("tar", "zstd"):
        if not shutil.which(name):
            raise HostUnfit(f"{name} is not installed", fix=f"apt-get install {name}")


@dataclass(frozen=True)
class Packed:
    """A file that was written: its size and its checksum, and the bytes of the files in it."""

    size: int
    sha256: str
    content: int


def pack(folder: Path, file: Path, *, names: Sequence[str] = (".",), timeout: float) -> Packed:
    """Write a folder into a new file that only its owner may read.

    Nobody may change the folder meanwhile: a file that changes is an error. Sockets are left out, as whoever listens makes them anew.

    Args:
        folder: what is packed.
        file: is made.
        names: what of the folder.
        timeout: deadline in seconds.

    Raises:
        StackbookError: tar or zstd failed.
        WaitTimeout: the deadline passed.
    """
    make = [*_TAR, "--create", "--sparse", "--one-file-system", "--totals", "--warning=no-file-ignored"]
    size, digest = 0, hashlib.sha256()
    with (
        os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as target,
        _pipe([*make, "-C", str(folder), "--", *names], ["zstd", "-q", "-1", "-c"], timeout) as pipe,
    ):
        while block := pipe.out.read(_BLOCK):
            target.write(block)
            digest.update(block)
            size += len(block)
        target.flush()
        os.fsync(target.fileno())
    return Packed(size, digest.hexdigest(), _total(pipe.said))


def unpack(file: Path, folder: Path, *, timeout: float) -> None:
    """Put what was packed into a folder that is there.

    Raises:
        StackbookError: tar or zstd failed.
        WaitTimeout: the deadline passed.
    """
    take = [*_TAR, "--extract", "--same-owner", "--same-permissions", "-C", str(folder)]
    with _pipe(["zstd", "-q", "-d", "-c", str(file)], take, timeout) as pipe:
        pipe.out.read()


def checksum(file: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass
class _Pipe:
    """Two commands: the output of the second, and in the end what both have said beside it, in lines."""

    out: IO[bytes]
    said: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _pipe(first: Sequence[str], second: Sequence[str], timeout: float) -> Iterator[_Pipe]:
    """Two commands, one reading from the other, while the block runs; at its end both have ended well, or it is an error."""
    late = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        late.set()
        for process in started:
            process.kill()

    watch = threading.Timer(timeout, end)
    with tempfile.TemporaryFile() as said:
        try:
            started.append(_started(first, subprocess.DEVNULL, said))
            assert started[0].stdout is not None
            started.append(_started(second, started[0].stdout, said))
            started[0].stdout.close()  # of this process: the second has it
            assert started[1].stdout is not None
            pipe = _Pipe(started[1].stdout)
            watch.start()
            yield pipe
            codes = [process.wait(30) for process in started]
        finally:
            watch.cancel()
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait(10)
                if process.stdout:
                    process.stdout.close()
        said.seek(0)
        pipe.said = said.read().decode(errors="replace").strip().splitlines()
    if late.is_set():
        raise WaitTimeout(f"{first[0]} and {second[0]}", timeout, last=" | ".join(pipe.said[-2:]))
    if any(codes):
        name = next(argv[0] for argv, code in zip((first, second), codes, strict=True) if code)
        raise StackbookError(f"{name} failed: {' | '.join(pipe.said[-2:]) or 'it says nothing'}")


def _started(argv: Sequence[str], source: int | IO[bytes], said: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv, stdin=source, stdout=subprocess.PIPE, stderr=said, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise HostUnfit(f"{argv[0]} is not installed", fix=f"apt-get install {argv[0]}") from None


def _total(said: Sequence[str]) -> int:
    """What tar says that it has written.

    >>> _total(["Total bytes written: 1177600 (1.2MiB, 1.0GiB/s)"])
    1177600
    """
    return next((int(line.split()[3]) for line in said if line.startswith("Total bytes written: ")), 0)
