"""The locks of the cache. A process that waits for a lock shows the progress of its holder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.core.locks import Held, Lock, Note
from stackbook.core.progress import Progress, Report

_NOTE_EVERY = 0.5


@dataclass
class Job:
    """A job whose lock this thread holds, or whose result another process has just made (`found`)."""

    held: Held
    report: Report
    _noted: float = field(default=0.0)

    @property
    def found(self) -> object:
        """The job's result, if another process has made it while this process waited; else None."""
        return self.held.found

    def __call__(self, progress: Progress) -> None:
        """Report progress, and write it into the note for processes that wait."""
        now = time.monotonic()
        if now - self._noted >= _NOTE_EVERY:
            self._noted = now
            self.held.note(**progress.as_dict())
        self.report(progress)


class JobLock(Lock):
    """One named lock in a folder of locks."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        super().__init__(folder / f"{name.replace('/', '_').replace(':', '-')}.lock")

    @contextmanager
    def job(
        self, job: str, *, report: Report, deadline: float, found: Callable[[], object] | None = None
    ) -> Iterator[Job]:  # fmt: skip
        """Hold the lock for a job, unless `found` finds its result, which another process may have made.

        Args:
            job: the job for which the lock is needed.
            report: gets progress, also while this process waits.
            deadline: maximum number of seconds to wait.
            found: looks for the job's result; called while this process waits.

        Raises:
            WaitTimeout: the lock did not become free; the error names the holder and what it is doing.
        """

        def waiting(seconds: float, holder: Note) -> None:
            if seconds > 0.2:
                report(Progress(job, "wait", seconds=seconds, message=progress_words(holder)))

        start = Progress(job, "build").as_dict()
        fix = "look at process {pid}, or end it: this one takes over"
        what = f"{job} from another stackbook process"
        with self.held(
            what=what, timeout=deadline, found=found, waiting=waiting, describe=progress_words, fix=fix, **start
        ) as held:  # fmt: skip
            yield Job(held, report)


def progress_words(note: Note) -> str:
    """What a holder is doing, in words."""
    if not note:
        return "another process has just started it"
    fields = {key: note[key] for key in Progress.__dataclass_fields__ if key in note}
    return f"{Progress(**fields).line()}, by process {note.get('pid', '?')}"
