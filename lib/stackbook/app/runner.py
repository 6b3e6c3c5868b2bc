"""Running chapters in order, with a record on disk.

Papermill executes each notebook; this module decides what has to run, shows the steps while they run, and saves the
evidence. Outcomes: passed, unchanged (proved, not run again), failed, blocked (a chapter that it needs failed), interrupted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackbook.app import (
    challenging,
    import_patch,
    kernel_errors,
    kernels_ahead,
    life,
    preflight,
    proving,
    reset,
    run_parameters,
)
from stackbook.app.run_display import display
from stackbook.app.run_record import PASSED, Outcome, Run, exit_status, keep_evidence, save, summary
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import following, only_run, prefetching
from stackbook.app.time_left import TimeLeft
from stackbook.artifacts import cache_folder
from stackbook.config import chapters, namespaces
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.core import ownership, paths
from stackbook.core.redact import redact
from stackbook.core.waiting import pause
from stackbook.lab import proofs, reading
from stackbook.lab.claims import step_ends
from stackbook.lab.lab import Lab
from stackbook.lab.step import Record, now
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.providers.ssh import SSH
from stackbook.machines.providers.vm import VirtualMachines

# The chapter with which building web pages begins, for which no chapter waits: those before it are not slowed down.
PAGES_FROM = "13"
# A cell that runs longer than this is broken: every wait inside has its own shorter deadline.
CELL_TIMEOUT = 2400


def run(
    profile: str = "embedded",
    *,
    first: str = "",
    last: str = "",
    only: tuple[str, ...] = (),
    parameters: Mapping[str, Any] | None = None,
    again: bool = False,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run chapters; see the module's docstring.

    Args:
        profile: name or path.
        first, last, only: the choice of chapters; see `chapters.choose`.
        parameters: overrides for the parameters of the profile and the chapters.
        again: also execute chapters that are already proved.
        say: takes a line of progress; if None, it goes to the terminal.

    Raises:
        InputError: bad input or an unfit host; nothing was changed.
    """
    chosen = chapters.choose(first=first, last=last, only=only)
    overrides, of_chapters = run_parameters.split_parameters(parameters or {}, chosen)
    loaded = Profile.load(profile, overrides=overrides)
    loaded.ca_file()  # refused now if it is not there
    namespaces.use(loaded.namespaces)
    values = {c.id: run_parameters.chapter_values(c, loaded, of_chapters) for c in chosen}
    with kernels_ahead.ahead() as ahead:
        if again or chosen[0].id not in proving.proved_before(loaded):
            ahead.wanted = chosen[0].notebook
            ahead.prepare(now=True)
        _demand(loaded, chosen)
        return _run(loaded, chosen, values, ahead, again=again, say=say)


def _demand(loaded: Profile, chosen: Sequence[chapters.Chapter]) -> None:
    """Refuse what cannot be run on this host, before anything changes."""
    if any(chapters.on_machines(chapter) for chapter in chosen):
        _known_versions(loaded)
        preflight.demand(loaded, [chapter.number for chapter in chosen])
        Store(loaded.lab).demand_whole()
        if loaded.target == "embedded":
            Embedded(loaded).demand_names()
        elif loaded.target == "vm":
            VirtualMachines(loaded).demand()
        elif loaded.target == "ssh":
            SSH(loaded).demand()
    cache_folder.demand(paths.cache())


def _run(
    loaded: Profile,
    chosen: list[chapters.Chapter],
    values: Mapping[str, Mapping[str, Any]],
    ahead: kernels_ahead.Ahead,
    *,
    again: bool,
    say: Callable[[str], None] | None,
) -> Run:
    needs_lab = any(chapters.on_machines(chapter) for chapter in chosen)
    with only_run(loaded.lab):
        folder = _folder()
        current = Run(loaded, chosen, folder)
        start = time.monotonic()
        (folder / "profile.yaml").write_text(_effective(loaded, values), encoding="utf-8")
        if needs_lab:
            reset.remember(loaded)
        executed = [chapter for chapter in chosen if not reading.only_read(loaded, chapter)]
        names = dict.fromkeys(name for chapter in executed for name in chapter.artifacts)
        lab = Lab(chosen[0], loaded, ChapterParameters())
        components = lab.images.components(names)
        pages = lab.images.components(dict.fromkeys(page for chapter in executed for page in chapter.pages))
        left = TimeLeft(lab.artifacts, components, chosen, folder)
        with (
            display(say, left=left) as screen,
            prefetching(loaded, components, folder),
            following(folder, screen) as tell,
            contextlib.ExitStack() as later,
        ):
            try:
                tell(left.announcement())
                if needs_lab:
                    life.wake_if_stopped(loaded, say=tell)
                challenging.give_back(loaded.name, say=tell)
                for chapter, coming in zip(chosen, [*chosen[1:], None], strict=True):
                    if pages and chapter.number >= PAGES_FROM:
                        later.enter_context(prefetching(loaded, pages, folder, log="pages.log"))
                        pages = []
                    ahead.wanted = coming.notebook if coming else None
                    current.outcomes.append(_one(current, chapter, values[chapter.id], again, tell))
                    left.passed(chapter)
                    current.seconds = round(time.monotonic() - start, 3)
                    save(current)
            except KeyboardInterrupt:
                current.seconds = round(time.monotonic() - start, 3)
                save(current)
                raise
            if not current.passed:
                keep_evidence(current, tell)
    return current


def _known_versions(profile: Profile) -> None:
    """Refuse a version that no source has, before anything changes."""
    from stackbook.artifacts.catalogue_loader import load
    from stackbook.artifacts.resolver import Resolver

    if load(versions=profile.versions, strict=profile.strict).overridden:
        Resolver.open(source=profile.source, versions=profile.versions, strict=profile.strict).demand_versions()


def _effective(profile: Profile, values: Mapping[str, Mapping[str, Any]]) -> str:
    data = profile.model_dump(mode="json")
    data["chapters"] = {**data["chapters"], **{k: dict(v) for k, v in values.items() if v}}
    return yaml.safe_dump(data, sort_keys=False)


def _folder() -> Path:
    stamp = now()
    ownership.make(paths.runs())
    folder = paths.runs() / stamp
    number = 1
    while folder.exists():
        number += 1
        folder = paths.runs() / f"{stamp}-{number}"
    ownership.make(folder)
    latest = paths.runs() / "latest"
    temporary = paths.runs() / f".latest-{os.getpid()}"
    temporary.symlink_to(folder.name)
    temporary.replace(latest)
    return folder


def _one(
    current: Run, chapter: chapters.Chapter, values: Mapping[str, Any], again: bool, say: Callable[[str], None]
) -> Outcome:
    start = time.monotonic()
    read = reading.only_read(current.profile, chapter)
    outcome = Outcome(chapter.id, leaves="nothing: it was read" if read else chapter.leaves)
    failed = {o.chapter for o in current.outcomes if o.outcome not in PASSED}
    say(f"{chapter.id}: {chapter.title}")
    if blocking := sorted(failed & _all_needs(chapter)):
        outcome.outcome, outcome.reason = "blocked", f"{blocking[0]} did not pass"
    elif not again and (evidence := proving.proved(current.profile, chapter, values)) is not None:
        outcome.outcome, outcome.reason = "unchanged", evidence
    else:
        _execute(current, chapter, values, outcome)
    outcome.seconds = round(time.monotonic() - start, 2)
    if outcome.outcome == "failed":
        say(f"  ✗ {outcome.reason}")
    return outcome


def _all_needs(chapter: chapters.Chapter) -> set[str]:
    direct = {c.id: set(c.needs) for c in chapters.ALL}
    found, todo = set(), list(chapter.needs)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += direct.get(name, set())
    return found


def _execute(current: Run, chapter: chapters.Chapter, values: Mapping[str, Any], outcome: Outcome) -> None:
    """Execute one notebook by papermill; its outcome follows from the exception and the record, not from the cells' marks."""
    import_patch.spare_grammar()
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    kernel_errors.report_once()
    target = current.folder / f"{chapter.id}.ipynb"
    outcome.notebook = target.name
    os.environ["STACKBOOK_RUN"] = str(current.folder.resolve())
    record = Record(current.folder / "events.jsonl")
    _, place = record.since(0)
    try:
        papermill.execute_notebook(
            str(chapter.notebook),
            str(target),
            parameters={"profile": str((current.folder / "profile.yaml").resolve()), **values},
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            execution_timeout=CELL_TIMEOUT,
            cwd=str(paths.checkout()),
            kernel_manager_class="stackbook.app.ipc_kernel.LocalKernelManager",
        )
        outcome.outcome = "passed"
    except papermill.PapermillExecutionError as error:
        outcome.reason = redact(f"{error.ename}: {error.evalue}")
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        said = _last_words(current.folder) if isinstance(error, DeadKernelError) else ""
        outcome.reason = redact(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{said}")
    except KeyboardInterrupt:
        outcome.outcome = "interrupted"
        current.outcomes.append(outcome)
        raise
    except Exception as error:  # for example, an invalid notebook or a full disk: the run's record is written anyway
        outcome.reason = redact(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    finally:
        os.environ.pop("STACKBOOK_RUN", None)
        events, _ = record.since(place)
        outcome.steps = step_ends(events)
        outcome.changed = sum(int(s.get("changed", 0)) for s in outcome.steps)
    if outcome.outcome == "passed" and any(s["outcome"] != "passed" for s in outcome.steps):
        outcome.outcome, outcome.reason = "failed", "a step failed, although the notebook ran to its end"
    if outcome.outcome == "passed" and chapter.batch:
        lab = Lab(
            chapter,
            current.profile,
            validate(CHAPTER_PARAMETERS.get(chapter.id, ChapterParameters), values, where=chapter.id),
        )
        proving.remember(current.profile, chapter, proofs.key(lab))


def _last_words(folder: Path) -> str:
    """The file with a kernel's own output, and its last line; a killed kernel wrote nothing."""
    path = folder / "kernels.log"
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f"; its last line in {path.name}: {lines[-1][:300]}" if lines else f"; it wrote nothing to {path.name}"


__all__ = ["CELL_TIMEOUT", "Outcome", "Run", "exit_status", "pause", "run", "save", "summary"]
