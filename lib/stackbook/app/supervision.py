"""What accompanies a run: its lock, fetching components in advance, and its lines in the terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbook.app.run_display import Display
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.child_processes import end
from stackbook.core.errors import InputError
from stackbook.core.locks import Lock, words
from stackbook.core.waiting import beside
from stackbook.lab.step import Record, now

# How much of Go's build cache is kept after everything is built: it only saves time if a component changes.
GO_CACHE_GB = 2


@contextlib.contextmanager
def only_run(lab: str, who: str = "stackbook run") -> Iterator[None]:
    """Hold the run's lock: no other run or reset can change the lab at the same time.

    A chapter of the run itself is not refused: the run that started its kernel holds the lock for it.
    """
    lock = Lock(paths.state(lab).parent / f"{lab}.lock")
    with lock.attempt(who=who, since=now()) as held:
        note = lock.holder() or {}
        if held is None and not _started_by(int(note.get("pid", 0))):
            holder = words(note)
            fix = "wait for it, or stop it with Ctrl-C"
            raise InputError(f"another run uses the lab {lab!r} ({holder})", fix=fix)
        yield


def _started_by(pid: int) -> bool:
    """Whether this process, or one that started it, was started by that process."""
    process = os.getpid()
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if process == pid:
            return True
    return False


@contextlib.contextmanager
def prefetching(
    profile: Profile, names: Sequence[str], folder: Path, *, log: str = "prefetch.log"
) -> Iterator[None]:  # fmt: skip
    """Fetch and build components in this order, in a separate process, before the chapters need them.

    What is unfinished when the block ends continues in the next run, or in `stackbook fetch`.
    """
    if not names:
        yield
        return
    command = [sys.executable, "-m", "stackbook.artifacts.prefetch", "--source", profile.source]
    command += ["--kubernetes", profile.kubernetes_version, "--machines", profile.machine_release]
    command += [*(["--strict"] if profile.strict else []), *names]
    with (folder / log).open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        try:
            yield
        finally:
            end(process, steps=((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0)), group=True)
    _trim_after_builds(folder / log)


def _trim_after_builds(log: Path) -> None:
    """Limit Go's caches if something was built; after the chapters, because those on protobuf and gRPC also use them."""
    if " built in " in log.read_text(encoding="utf-8", errors="replace"):
        command = [sys.executable, "-m", "stackbook.artifacts.prefetch", "--trim", str(GO_CACHE_GB), "go"]
        with contextlib.suppress(subprocess.TimeoutExpired), log.open("a", encoding="utf-8") as sink:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=180, check=False)


@contextlib.contextmanager
def following(folder: Path, screen: Display) -> Iterator[Callable[[str], None]]:
    """Show the steps' events while notebooks run in their kernels.

    Yields a function to print something else in order: after all earlier events.
    """
    one_at_a_time = threading.RLock()
    record, place = Record(folder / "events.jsonl"), 0

    def catch_up() -> None:
        nonlocal place
        with one_at_a_time:
            events, place = record.since(place)
            for event in events:
                if event["event"] == "progress":
                    screen.progress(event)
                elif line := _line(event):
                    screen.settled()
                    screen.say(line)

    def follow(stop: threading.Event) -> None:
        while not stop.wait(0.3):
            catch_up()

    def tell(text: str) -> None:
        with one_at_a_time:
            catch_up()
            screen.say(text)

    try:
        with beside(follow, name="follow", timeout=5):
            yield tell
    finally:
        catch_up()


def _line(event: Mapping[str, Any]) -> str:
    if event["event"] == "step-start":
        return f"  • {event['step']}: {event['title']}"
    failed = event["event"] == "claims" and event["outcome"] != "passed"
    unseen = event.get("between") and event["outcome"] == "passed"  # it had no line when it began
    if (event["event"] == "step-end" and not unseen) or failed:
        mark = {"passed": "✓", "interrupted": "–"}.get(str(event["outcome"]), "✗")
        return f"  {mark} {event['step']} ({event['seconds']:.1f} s)"
    return ""
