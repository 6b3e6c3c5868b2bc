"""The locks of the cache: what a holder is doing reaches those who wait as progress."""

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
    """A job that this thread has the lock for, or one whose result another process has just finished (`found`)."""

    held: Held
    report: Report
    _noted: float = field(default=0.0)

    @property
    def found(self) -> object:
        """What the job was to make, when it was made while this process waited; else None."""
        return self.held.found

    def __call__(self, progress: Progress) -> None:
        """Report, and keep the note that waiters read."""
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
        """Hold the lock for a job, unless `found` says that its result has come from somewhere else.

        Args:
            job: what the lock is wanted for.
            report: where progress and waiting are shown.
            deadline: seconds to wait for another holder at most.
            found: looks for the job's result; asked while this process waits.

        Raises:
            WaitTimeout: another process held it all the time; the error says who and what it was doing.
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
