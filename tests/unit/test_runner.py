"""Running chapters: tiny notebooks in a folder of their own, executed for real by papermill where that is the point."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import plan, proving, run_parameters, runner
from stackbook.app.claim import Check
from stackbook.config import chapters
from stackbook.config.chapters import Chapter
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import CheckFailed, InputError
from stackbook.lab import proofs

GOOD = """
import os
from pathlib import Path
from stackbook.lab.step import Record
from stackbook.lab.step import step
record = Record(Path(os.environ["STACKBOOK_RUN"]) / "events.jsonl")
with step("make", "something is made", chapter="x", record=record) as current:
    current.changed = 2
    current.note(profile=profile)
"""
BROKEN = (
    GOOD
    + """
with step("check", "it is looked at", chapter="x", record=record) as current:
    current.check(1 > 2, "one is more than two", seen="password=hunter22")
"""
)
SWALLOWED = (
    GOOD
    + """
try:
    with step("quiet", "its failure is swallowed", chapter="x", record=record):
        raise ValueError("nobody hears")
except ValueError:
    pass
"""
)
DEAD = "import os, time\nos.write(2, b'the last that it said\\n')\ntime.sleep(1)\nos._exit(3)"
ALL = (
    Chapter("80-good", "Passes", leaves="two things"),
    Chapter("81-broken", "Fails", needs=("80-good",)),
    Chapter("82-after", "Needs what fails", needs=("81-broken",)),
    Chapter("83-later", "Needs what needs what fails", needs=("82-after",)),
    Chapter("84-swallowed", "Hides a failure"),
    Chapter("85-dead", "Kills its kernel"),
    Chapter("86-torn", "Is no notebook"),
    Chapter("95-apart", "Runs only when asked", batch=False),
)
SOURCES = {"80-good": GOOD, "81-broken": BROKEN, "82-after": GOOD, "83-later": GOOD, "84-swallowed": SWALLOWED,
           "85-dead": DEAD, "95-apart": GOOD}  # fmt: skip


def notebook(source: str) -> str:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{n}", "outputs": [], "source": text,
         "metadata": {"tags": ["parameters"] if n == 0 else []}}
        for n, text in enumerate(('profile = "embedded"', source))
    ]  # fmt: skip
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})


def arranged(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Tiny chapters, and a user with empty folders."""
    for name in ("CACHE", "STATE", "RUNS"):
        patch.setenv(f"STACKBOOK_{name}", str(folder / name.lower()))
    books = folder / "notebooks"
    books.mkdir()
    for name, source in SOURCES.items():
        (books / f"{name}.ipynb").write_text(notebook(source), encoding="utf-8")
    (books / "86-torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    patch.setattr(paths, "notebooks", lambda: books)
    patch.setattr(chapters, "ALL", ALL)
    patch.setattr(runner, "keep_evidence", lambda current, say: say("evidence is kept"))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    arranged(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[runner.Run, list[str]]:
    """One run of all tiny chapters, and what it said."""
    with pytest.MonkeyPatch.context() as patch:
        arranged(tmp_path_factory.mktemp("run"), patch)
        said: list[str] = []
        return runner.run(say=said.append), said


@pytest.fixture
def papermill(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notebooks pass without a kernel; the list has the names of those executed."""
    import papermill as real

    executed: list[str] = []
    monkeypatch.setattr(real, "execute_notebook", lambda source, target, **_: executed.append(Path(source).stem))
    return executed


def outcome(run: runner.Run, chapter: str) -> runner.Outcome:
    return next(o for o in run.outcomes if o.chapter == chapter)


@pytest.mark.slow
def test_each_chapter_has_its_outcome(done: tuple[runner.Run, list[str]]) -> None:
    assert {o.chapter: o.outcome for o in done[0].outcomes} == {
        "80-good": "passed", "81-broken": "failed", "82-after": "blocked", "83-later": "blocked",
        "84-swallowed": "failed", "85-dead": "failed", "86-torn": "failed",
    }  # fmt: skip
    assert not done[0].passed
    assert runner.exit_status(done[0]) == 1


@pytest.mark.slow
def test_a_failure_says_why_and_keeps_no_secret(done: tuple[runner.Run, list[str]]) -> None:
    broken = outcome(done[0], "81-broken")
    assert broken.reason == "CheckFailed: check: this does not hold: one is more than two; seen: password=***"
    assert [(s["step"], s["outcome"]) for s in broken.steps] == [("make", "passed"), ("check", "failed")]
    assert outcome(done[0], "84-swallowed").reason == "a step failed, although the notebook ran to its end"
    assert outcome(done[0], "85-dead").reason.startswith("DeadKernelError")
    assert "in kernels.log: the last that it said" in outcome(done[0], "85-dead").reason
    assert "JSON" in outcome(done[0], "86-torn").reason
    assert not [p for p in done[0].folder.glob("*.json*") if "hunter22" in p.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_what_a_blocked_chapter_waits_for_is_named(done: tuple[runner.Run, list[str]]) -> None:
    assert outcome(done[0], "82-after").reason == "81-broken did not pass"
    assert outcome(done[0], "83-later").reason == "81-broken did not pass"
    assert outcome(done[0], "83-later").notebook == ""


@pytest.mark.slow
def test_steps_are_shown_while_they_run_and_evidence_is_kept(done: tuple[runner.Run, list[str]]) -> None:
    text = "\n".join(done[1])
    assert "80-good: Passes\n  • make: something is made\n  ✓ make (" in text
    assert "  ✗ check (" in text
    assert done[1][-1] == "evidence is kept"


@pytest.mark.slow
def test_the_record_on_disk_says_the_same(done: tuple[runner.Run, list[str]]) -> None:
    folder = done[0].folder
    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert [(c["chapter"], c["outcome"]) for c in data["chapters"]] == [
        (o.chapter, o.outcome) for o in done[0].outcomes
    ]
    assert data["passed"] is False
    assert {"profile", "versions", "host", "started", "seconds"} <= set(data)
    assert (folder.parent / "latest").resolve() == folder.resolve()
    assert data["chapters"][0]["steps"][0]["evidence"]["profile"] == str(folder.resolve() / "profile.yaml")
    assert Profile.load(folder / "profile.yaml").lab == "stackbook"


@pytest.mark.slow
def test_the_summary_is_a_table_with_every_chapter(done: tuple[runner.Run, list[str]]) -> None:
    lines = runner.summary(done[0]).splitlines()
    assert lines[0].split() == ["chapter", "outcome", "seconds", "changed", "left", "behind"]
    assert [line.split()[:2] for line in lines[2:-1]] == [[o.chapter, o.outcome] for o in done[0].outcomes]
    assert "two things" in lines[2]
    assert lines[-1].startswith("6 changes in ")


def test_chapters_not_reached_are_in_the_summary_and_the_run_has_not_passed(tiny: Path) -> None:
    run = runner.Run(Profile(), list(ALL[:2]), tiny, [runner.Outcome("80-good", "passed")])
    assert "81-broken  not run" in runner.summary(run)
    assert not run.passed


def test_what_is_proved_is_not_run_again(tiny: Path, papermill: list[str]) -> None:
    first = runner.run(only=("80",), say=lambda _: None)
    second = runner.run(only=("80",), say=lambda _: None)
    assert [o.outcome for o in (*first.outcomes, *second.outcomes)] == ["passed", "unchanged"]
    assert papermill == ["80-good"]
    assert second.outcomes[0].reason == "passed on this lab before"
    assert runner.summary(second).splitlines()[-1].startswith("Nothing was changed: everything was as it should be")
    assert runner.run(only=("80",), again=True, say=lambda _: None).outcomes[0].outcome == "passed"
    assert papermill == ["80-good", "80-good"]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["notebook", "library", "profile", "instance", "proofs", "check"])
def test_a_proof_holds_only_for_what_was_proved(
    tiny: Path, papermill: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def breaks(_: object) -> str:
        raise CheckFailed("gone")

    runner.run(only=("80",), say=lambda _: None)
    state = paths.state("stackbook")
    overrides: dict[str, Any] = {}
    if change == "notebook":
        (tiny / "notebooks" / "80-good.ipynb").write_text(notebook(GOOD + "\n1"), encoding="utf-8")
    elif change == "library":
        monkeypatch.setattr(proofs, "library_digest", lambda: "another")
    elif change == "profile":
        overrides = {"flannel_backend": "host-gw"}
    elif change == "instance":
        # Only a chapter that stands on another knows one lab from the next.
        (state / "instance").write_text("another\n", encoding="utf-8")
    elif change == "proofs":
        (state / "proved.json").write_text("[1, {", encoding="utf-8")
    else:
        monkeypatch.setattr(proving.checks, "of", lambda _: (Check("there", "it is there", breaks),))
    again = runner.run(only=("80",), parameters=overrides, say=lambda _: None)
    assert again.outcomes[0].outcome == ("unchanged" if change == "instance" else "passed")


def test_an_interrupt_keeps_what_was_done(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill as real

    def execute(source: str, target: str, **_: object) -> None:
        if "84" in Path(source).name:  # a temporary folder has a number, too
            raise KeyboardInterrupt

    monkeypatch.setattr(real, "execute_notebook", execute)
    with pytest.raises(KeyboardInterrupt):
        runner.run(only=("80", "84", "85"), say=lambda _: None)
    data = json.loads((paths.runs() / "latest" / "run.json").read_text(encoding="utf-8"))
    assert [(c["chapter"], c["outcome"]) for c in data["chapters"]] == [
        ("80-good", "passed"),
        ("84-swallowed", "interrupted"),
    ]
    assert data["passed"] is False


def test_two_runs_do_not_share_a_lab(tiny: Path, papermill: list[str]) -> None:
    lock = paths.state("stackbook").parent / "stackbook.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run uses the lab 'stackbook'"):
            runner.run(only=("80",), say=lambda _: None)
        assert runner.run(only=("80",), parameters={"lab": "other"}, say=lambda _: None).passed
    assert runner.run(only=("80",), say=lambda _: None).passed


@pytest.mark.slow
def test_two_runs_in_the_same_second_have_folders_of_their_own(tiny: Path, papermill: list[str]) -> None:
    folders = {runner.run(only=("80",), say=lambda _: None).folder for _ in range(3)}
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flanel_backend": "udp"}, "unknown parameter 'flanel_backend' — did you mean 'flannel_backend'?"),
        (
            {"pings": 10},
            "parameter 'pings' belongs to 03-flannel, which is not part of this run — add 03-flannel to the run",
        ),
        ({"chapters": {}}, "unknown parameter 'chapters'"),
        ({"name": "x"}, "unknown parameter 'name'"),
    ],
)
def test_a_parameter_that_nobody_takes_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        run_parameters.split_parameters(given, [c for c in chapters.ALL if c.number == "04"])
    assert str(error.value).startswith(said)


def test_parameters_go_to_the_lab_or_to_their_chapter() -> None:
    chosen = [c for c in chapters.ALL if c.number in ("03", "04")]
    given = {"lab": "x", "pings": 10, "replicas": 3}
    assert run_parameters.split_parameters(given, chosen) == ({"lab": "x"}, {"pings": 10, "replicas": 3})


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"only": ("good1",)}, "no chapter is named 'good1' — did you mean 'good'?"),
        ({"first": "84", "last": "81"}, "there are no chapters from 84 to 81 — swap --from and --to"),
        ({"first": "84", "only": ("80",)}, "--only cannot be combined with --from or --to — remove --from and --to"),
        ({"last": "nonsense"}, "no chapter is named 'nonsense' — available chapters: good, 80-good"),
    ],
)
def test_a_choice_of_chapters_that_cannot_be(tiny: Path, choice: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        chapters.choose(**choice)
    assert str(error.value).startswith(said)


def test_without_notebooks_there_is_nothing_to_run(tiny: Path) -> None:
    for path in (tiny / "notebooks").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no notebook"):
        chapters.choose()


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({}, ["80", "81", "82", "83", "84", "85", "86"]),
        ({"first": "85"}, ["85", "86"]),
        ({"last": "broken"}, ["80", "81"]),
        ({"only": ("84-swallowed", "80", "good")}, ["80", "84"]),
        ({"last": "95"}, ["80", "81", "82", "83", "84", "85", "86", "95"]),
    ],
)
def test_chapters_are_chosen_in_their_order(tiny: Path, choice: dict[str, Any], wanted: list[str]) -> None:
    assert [c.number for c in chapters.choose(**choice)] == wanted


def test_the_shipped_chapters_stand_on_earlier_ones() -> None:
    ids = [c.id for c in chapters.ALL]
    assert ids == sorted(set(ids))
    for chapter in chapters.ALL:
        assert all(need in ids and need < chapter.id for need in chapter.needs)


def test_bad_input_leaves_no_trace(tiny: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: runner.run(only=("none",)),
        lambda: runner.run(only=("80",), parameters={"subnet": "10.0.0.0/33"}),
        lambda: runner.run("embeded", only=("80",)),
    ]
    for attempt in attempts:
        with pytest.raises(InputError):
            attempt()
    assert not paths.runs().exists()


def test_what_is_somebody_elses_is_refused_before_anything_is_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken, and a cache folder with other things in it."""

    def taken(_: object) -> None:
        raise InputError("there is a volume of that name")

    def begun(_: str) -> None:
        pytest.fail("the run has begun: without this it would go on, on the lab that stands here")

    monkeypatch.setattr(runner, "only_run", begun)
    monkeypatch.setattr(runner.preflight, "demand", lambda *_: None)
    monkeypatch.setattr(runner.Embedded, "demand_names", taken)
    with pytest.raises(InputError, match="there is a volume of that name"):
        runner.run(only=("01",))
    paths.cache().mkdir()
    (paths.cache() / "holiday.jpg").touch()
    with pytest.raises(InputError, match="is not a cache of stackbook"):
        runner.run(only=("00",))
    assert [path.name for path in home.rglob("*")] == ["cache", "holiday.jpg"]


def test_a_plan_says_what_a_run_would_do_and_does_nothing(tiny: Path, papermill: list[str]) -> None:
    runner.run(only=("80",), say=lambda _: None)
    runs = sorted(paths.runs().iterdir())
    lines = list(plan.plan(last="81"))
    assert lines == ["80-good: nothing to do: passed on this lab before", "81-broken: would run: its cells"]
    assert sorted(paths.runs().iterdir()) == runs
    assert papermill == ["80-good"]


def test_a_plan_reads_the_chapters_parameters_of_the_profile_as_a_run_does(
    tiny: Path, papermill: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS, Flannel

    monkeypatch.setitem(CHAPTER_PARAMETERS, "80-good", Flannel)
    profile = tiny / "mine.yaml"
    profile.write_text("chapters: {80-good: {pings: 7}}\n", encoding="utf-8")
    runner.run(str(profile), only=("80",), say=lambda _: None)
    assert next(plan.plan(str(profile), only=("80",))).startswith("80-good: nothing to do")
    profile.write_text("chapters: {80-good: {pings: 8}}\n", encoding="utf-8")
    assert next(plan.plan(str(profile), only=("80",))).startswith("80-good: would run")


def test_pages_are_built_last_and_no_chapter_waits_for_them(
    tiny: Path, papermill: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[list[str], list[str], str]] = []

    @contextlib.contextmanager
    def prefetching(profile: Any, names: Any, folder: Path, *, log: str = "prefetch.log") -> Iterator[None]:
        begun.append((list(names), list(papermill), log))
        yield

    monkeypatch.setattr(runner, "prefetching", prefetching)
    monkeypatch.setattr(runner, "PAGES_FROM", ALL[1].number)
    paged = tuple(replace(chapter, pages=("gitea-pages",)) if n < 2 else chapter for n, chapter in enumerate(ALL))
    monkeypatch.setattr(chapters, "ALL", paged)
    runner.run(last="83", say=lambda _: None)
    assert begun[0] == ([], [], "prefetch.log")
    assert begun[1:] == [(["gitea-pages"], [ALL[0].id], "pages.log")]
    begun.clear()
    runner.run(only=(ALL[0].number,), say=lambda _: None)
    assert [log for _, _, log in begun] == ["prefetch.log"]


def test_what_a_kernel_said_last_is_told(tmp_path: Path) -> None:
    assert runner._last_words(tmp_path) == ""
    (tmp_path / "kernels.log").write_bytes(b"")
    assert runner._last_words(tmp_path) == "; it wrote nothing to kernels.log"
    (tmp_path / "kernels.log").write_bytes(b"first\nMemoryError \xff\n\n")
    assert runner._last_words(tmp_path).startswith("; its last line in kernels.log: MemoryError ")
