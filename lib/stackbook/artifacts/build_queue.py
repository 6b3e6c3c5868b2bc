"""The queue of builds of Go programs and of web pages, shared by all processes that share the cache.

Two builds of one group exclude each other. Builds of different groups run at the same time if there are enough processors and
memory (`places`). A build for which a chapter waits goes before prefetching, and has one place more. A process that waits keeps
looking for its artifact, because another process may build it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts.catalogue import PAGES
from stackbook.artifacts.job_locks import Job, JobLock, progress_words
from stackbook.core.errors import WaitTimeout
from stackbook.core.locks import Held, Lock
from stackbook.core.progress import Progress, Report
from stackbook.core.waiting import pause

_MEMORY_FOR_ONE = 4 << 30
"""Memory for one build, in bytes: the linker of the largest program takes 1.5 GB, and two linkers run at the same time."""
_EVERY = 0.2


def places(processors: int, free: int) -> int:
    """How many builds may run at the same time; one compiler keeps two processors busy.

    >>> places(2, 20 << 30), places(8, 20 << 30), places(8, 5 << 30), places(2, 1 << 30)
    (1, 4, 1, 1)
    """
    return max(1, min(processors // 2, free // _MEMORY_FOR_ONE, 4))


def free_memory() -> int:
    """The memory available to new processes, in bytes (`MemAvailable` of proc(5))."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class BuildQueue:
    """The queue of one cache; `folder` contains its locks."""

    folder: Path

    @contextlib.contextmanager
    def turn(
        self, group: str, *, urgent: bool, found: Callable[[], object], report: Report, deadline: float
    ) -> Iterator[Job]:  # fmt: skip
        """Hold the turn to build a group while the block runs, or yield the artifact if `found` finds it first.

        Args:
            group: the name of a group in the catalogue, or of a component that is web pages.
            urgent: whether a chapter waits for the build.
            found: looks for the artifact that the build would make.
            report: gets progress while this process waits.
            deadline: maximum number of seconds to wait.

        Raises:
            WaitTimeout: the deadline passed; the message says what is being built.
        """
        job = _job(group)
        start = time.monotonic()
        with self._wanted(group) if urgent else contextlib.nullcontext():
            while True:
                if answer := found():
                    yield Job(Held(None, waited=time.monotonic() - start, found=answer), report)
                    return
                with contextlib.ExitStack() as stack:
                    if self._place(stack, urgent=urgent, group=group) and (held := self._alone(stack, job)):
                        # Another process may have built it since the last look; it releases the lock after that.
                        held.found = found()
                        yield Job(held, report)
                        return
                waited = time.monotonic() - start
                busy = self._busy(group)
                if waited >= deadline:
                    raise WaitTimeout(f"the turn of {job} to be built", waited, last=busy)
                if waited > 0.2:
                    report(Progress(job, "wait", seconds=waited, message=busy))
                pause(_EVERY)

    @contextlib.contextmanager
    def no_build(self, *, deadline: float) -> Iterator[None]:
        """Wait until no build runs, and start none while the block runs."""
        with self._cache.held(what="all builds to end", timeout=deadline, job="trim"):
            yield

    @property
    def _cache(self) -> Lock:
        return Lock(self.folder / "go-cache.lock")

    def _group(self, group: str) -> JobLock:
        return JobLock(self.folder, _job(group))

    def _alone(self, stack: contextlib.ExitStack, job: str) -> Held | None:
        """Take the group's lock and a shared lock of the compiler's cache; returns None if another process has the group."""
        held = stack.enter_context(JobLock(self.folder, job).attempt(**Progress(job, "build").as_dict()))
        cache = stack.enter_context(self._cache.attempt(shared=True)) if held else None
        return held if cache else None

    def _place(self, stack: contextlib.ExitStack, *, urgent: bool, group: str) -> bool:
        """Whether this build gets a place; prefetching leaves the place to a chapter that waits."""
        free = free_memory()
        if not urgent and self._others_wanted(group):
            return False
        names = [f"go-place-{number}" for number in range(places(os.cpu_count() or 1, free))]
        if urgent and free > _MEMORY_FOR_ONE:
            names.append("go-place-urgent")
        return any(stack.enter_context(Lock(self.folder / f"{name}.lock").attempt()) for name in names)

    @contextlib.contextmanager
    def _wanted(self, group: str) -> Iterator[None]:
        """Mark the group as needed by a chapter; the mark is a shared lock, so several processes can hold it."""
        with Lock(self.folder / f"go-wanted-{group}.lock").attempt(shared=True):
            yield

    def _others_wanted(self, group: str) -> bool:
        """Whether a chapter waits for another group that no process builds yet, and no chapter waits for this one."""
        marks = {path.stem.removeprefix("go-wanted-"): path for path in self.folder.glob("go-wanted-*.lock")}
        wanted = {name for name, path in marks.items() if not _free(path)}
        return group not in wanted and any(self._group(name).holder() is None for name in wanted)

    def _busy(self, group: str) -> str:
        """What is being built now, in words: this group if it is, otherwise other groups."""
        if mine := self._group(group).holder():
            return progress_words(mine)
        files = [*sorted(self.folder.glob("go-*.lock")), *sorted(self.folder.glob(f"*{PAGES}.lock"))]
        others = (JobLock(self.folder, path.stem) for path in files)
        notes = [note for lock in others if (note := lock.holder()) and "phase" in note]
        return "; ".join(progress_words(note) for note in notes) or "a build that has just begun"


def _job(group: str) -> str:
    """The job of a build, after which its lock is named."""
    return group if group.endswith(PAGES) else f"go:{group}"


def _free(path: Path) -> bool:
    with Lock(path).attempt() as held:
        return held is not None
