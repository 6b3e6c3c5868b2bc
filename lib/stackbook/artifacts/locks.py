"""Locks between processes that share the cache, with a record of what the holder is doing.

A lock is a `flock` on a file: it ends with its holder however that ends, so a waiter takes over from a dead prefetcher
(https://man7.org/linux/man-pages/man2/flock.2.html). The record beside it is for people only.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stackbook.artifacts.progress import Progress, Report
from stackbook.errors import WaitTimeout
from stackbook.waiting import pause

_RECORD_EVERY = 0.5


class Lock:
    """One named lock in `folder`; use `held` to take it."""

    def __init__(self, folder: Path, name: str) -> None:
        safe = name.replace("/", "_").replace(":", "-")
        self.name = name
        self._file = folder / f"{safe}.lock"
        self._record = folder / f"{safe}.json"
        self._written = 0.0

    @contextmanager
    def held(self, *, job: str, report: Report, deadline: float) -> Iterator[Report]:
        """Hold the lock; yields a report that also keeps the record which waiters read.

        Args:
            job: what the lock is wanted for.
            report: where waiting is shown.
            deadline: seconds to wait for another holder at most.

        Raises:
            WaitTimeout: another process held it all the time; the error says who and what it was doing.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(fd, job, report, deadline)
            started = time.time()

            def recorded(progress: Progress) -> None:
                now = time.monotonic()
                if now - self._written >= _RECORD_EVERY:
                    self._written = now
                    self._write({"pid": os.getpid(), "started": started, **progress.as_dict()})
                report(progress)

            self._written = 0.0
            self._write({"pid": os.getpid(), "started": started, **Progress(job, "build").as_dict()})
            try:
                yield recorded
            finally:
                self._record.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def holder(self) -> dict[str, Any] | None:
        """What the present holder says of itself; None when nobody holds the lock."""
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read()
        else:
            return None
        finally:
            os.close(fd)

    def _acquire(self, fd: int, job: str, report: Report, deadline: float) -> None:
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            waited = time.monotonic() - start
            record = self._read()
            seen = _words(record)
            if waited >= deadline:
                pid = record.get("pid", "?")
                fix = f"look at process {pid}, or end it: this one takes over"
                raise WaitTimeout(f"{job} from another stackbook process", waited, last=seen, fix=fix)
            if waited > 0.2:
                remaining = record.get("remaining")
                report(Progress(job, "wait", seconds=waited, remaining=remaining, message=seen))
            pause(0.05 if waited < 1 else 0.3)

    def _write(self, record: dict[str, Any]) -> None:
        temporary = self._record.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._record)

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _words(record: dict[str, Any]) -> str:
    if not record:
        return "just started"
    fields = {key: record[key] for key in Progress.__dataclass_fields__ if key in record}
    pid = record.get("pid", "?")
    return f"{'this process' if pid == os.getpid() else f'process {pid}'}, {Progress(**fields).line()}"
