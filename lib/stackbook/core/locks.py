"""The library's lock, between processes and between threads, with a note about its holder.

A lock is a `flock` on a file that is opened for each attempt, so two threads of one process exclude each other as two
processes do. The lock is released when its holder ends, for whatever reason
(https://man7.org/linux/man-pages/man2/flock.2.html). The holder writes a note into the file: its process, when that
process started, and what it is doing. The note counts only while that process lives; the start time shows whether the
kernel has reused its number.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import pause

Note = dict[str, Any]
_SOON, _LATER = 0.05, 0.3  # seconds between two attempts, in the first second and after it


class Held:
    """A lock that this thread holds, or that it no longer needs: see `Lock.held`."""

    def __init__(
        self, file: int | None, *, shared: bool = False, waited: float = 0.0, found: object = None
    ) -> None:  # fmt: skip
        self._file, self._shared = file, shared
        self.waited, self.found = waited, found

    def alone(self) -> bool:
        """Make a shared lock exclusive if nobody else shares it; `share` undoes this."""
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)  # a conversion that fails may have lost the lock (flock(2))
            return False
        return True

    def share(self) -> None:
        """Make an exclusive lock shared again."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def note(self, **values: Any) -> None:
        """Tell waiting processes what the holder is doing."""
        if self._file is not None and not self._shared:
            data = json.dumps({"pid": os.getpid(), "born": born(os.getpid()), **values}).encode()
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))

    def forget(self) -> None:
        """Remove the note."""
        if self._file is not None and not self._shared:
            os.ftruncate(self._file, 0)


class Lock:
    """The lock of one file; the first attempt creates the file, and it stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def attempt(self, *, shared: bool = False, **note: Any) -> Iterator[Held | None]:
        """Hold the lock while the block runs, or yield None at once if somebody else holds it.

        Args:
            shared: hold it together with others that share it, but not with an exclusive holder. A shared lock has no
                note.
            note: information for waiting processes.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            held = Held(file, shared=shared)
            held.note(**note)
            try:
                yield held
            finally:
                held.forget()
        finally:
            os.close(file)

    @contextlib.contextmanager
    def held(
        self,
        *,
        what: str,
        timeout: float,
        shared: bool = False,
        found: Callable[[], object] | None = None,
        waiting: Callable[[float, Note], None] | None = None,
        describe: Callable[[Note], str] | None = None,
        fix: str = "",
        **note: Any,
    ) -> Iterator[Held]:
        """Wait for the lock, and hold it while the block runs.

        Args:
            what: what the caller waits for, as it follows "waiting for" in the error.
            timeout: deadline in seconds.
            shared: see `attempt`.
            found: called before each attempt; looks for the result that the lock is needed for. Once it returns a true
                value, the block runs without the lock, and `Held.found` is that value.
            waiting: called with the seconds waited so far and the note of the holder.
            describe: puts the holder's note in words for the error; `words` when None.
            fix: what the reader of the error can do; `{pid}` is the holder's process.
            note: information for other waiting processes.

        Raises:
            WaitTimeout: the lock did not become free; the error names the holder, and what it was doing.
        """
        start = time.monotonic()
        while True:
            if found is not None and (answer := found()):
                yield Held(None, waited=time.monotonic() - start, found=answer)
                return
            with self.attempt(shared=shared, **note) as held:
                if held is not None:
                    held.waited = time.monotonic() - start
                    yield held
                    return
            waited = time.monotonic() - start
            holder = self.holder() or {}
            if waited >= timeout:
                raise WaitTimeout(
                    what, waited, last=(describe or words)(holder), fix=fix.format(pid=holder.get("pid", "?"))
                )
            if waiting is not None:
                waiting(waited, holder)
            pause(_SOON if waited < 1 else _LATER)

    def holder(self) -> Note | None:
        """The note of the exclusive holder; None if there is no holder, or if it has not written its note yet."""
        try:
            note = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(note, dict) or not note.get("born") or born(note.get("pid", 0)) != note["born"]:
            return None
        return note


def words(note: Note) -> str:
    """Who holds a lock, in words.

    >>> words({"pid": 7, "who": "06-traffic, canary", "since": "10:00:00"})
    'process 7 has held it since 10:00:00: 06-traffic, canary'
    """
    if not note:
        return "a process that has just started holds it"
    holds = f"has held it since {note['since']}" if note.get("since") else "holds it"
    return f"process {note.get('pid', '?')} {holds}: {note.get('who') or note.get('job') or 'it does not say why'}"


def born(pid: int) -> str:
    """When a process started, in clock ticks since boot (proc(5), field 22); empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def ancestors() -> set[int]:
    """This process and its ancestors."""
    found, process = set(), os.getpid()
    while process > 0:
        found.add(process)
        try:
            stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        process = int(stat.rpartition(")")[2].split()[1])
    return found
