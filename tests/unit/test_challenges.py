"""Challenges: each is whole, its chapter shows it, and what one changes is written down before, and given back."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tool_module
from fakes import FakeHost
from stackbook.app import challenging, cli, session
from stackbook.core import paths
from stackbook.core.errors import CheckFailed, CommandFailed, InputError
from stackbook.core.results import Result
from stackbook.lab import attempt, journal, learner, typed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import HINTS, Challenge, Claim, Typed, require
from stackbook.lab.lab import Lab
from stackbook.lessons import challenges
from stackbook.lessons.challenges import workloads

EVERY = challenges.every()
PURE = ["08-a", "08-b", "08-c", "13-a", "13-c", "15-b"]
"""Those that need neither a machine nor a component that has to be built."""


# Each challenge


def test_there_are_three_for_each_chapter_and_48_in_all() -> None:
    chapters = sorted({challenge.chapter for challenge in EVERY})
    assert [chapter[:2] for chapter in chapters] == [f"{number:02}" for number in range(1, 17)]
    assert all(len(challenges.of(chapter)) >= 3 for chapter in chapters)
    assert len(EVERY) >= 48
    assert len({challenge.id for challenge in EVERY}) == len(EVERY)


@pytest.mark.parametrize("challenge", EVERY, ids=lambda challenge: challenge.id)
def test_a_challenge_is_whole(challenge: Challenge) -> None:
    assert challenge.id[:2] == challenge.chapter[:2]
    assert (paths.notebooks() / f"{challenge.chapter}.ipynb").exists()
    assert len(challenge.hints) == HINTS == len(set(challenge.hints))
    for text in (challenge.situation, challenge.goal, *challenge.hints):
        assert text[-1] in ".?)}…", text
    assert all("/" in need for need in challenge.needs)
    for need in challenge.needs:
        chapter, _, name = need.partition("/")
        assert name in {check.id for check in session.checks.of(chapter)}, need


def test_each_chapter_shows_its_challenges_in_a_cell_that_nobody_runs() -> None:
    writer = tool_module.load("challenges")
    for path in paths.notebooks().glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        own = [(number, cell) for number, cell in enumerate(cells) if cell["id"] == writer.ID]
        wanted = writer.section(path.stem)
        assert len(own) == bool(wanted), path.name
        if own:
            number, cell = own[0]
            assert cell["cell_type"] == "markdown" and number == len(cells) - 2
            assert "".join(cell["source"]) == wanted, f"{path.name}: run python tools/challenges.py"
        assert not any("lab.challenge(" in "".join(c["source"]) for c in cells if c["cell_type"] == "code")


def test_an_unknown_id_is_refused_with_the_near_one() -> None:
    with pytest.raises(InputError, match=r"there is no challenge '06-bb' — did you mean '06-b'"):
        challenges.find("06-bb")


# One that is open


@dataclass
class FakeKube:
    """kubectl that knows a namespace and an object, and writes down what it is asked."""

    ran: list[str] = field(default_factory=list)
    fail: str = ""

    def kubectl(self, *args: str, check: bool = True, stdin: Any = None, timeout: float = 60) -> Result:
        text = " ".join(args)
        self.ran.append(f"{text} < {stdin}" if stdin else text)
        broken = bool(self.fail) and self.fail in text
        result = Result(("kubectl", *args), int(broken), "", "NotFound" if broken else "", 0.0, "fake")
        if check and broken:
            raise CommandFailed(result)
        return result

    def json(self, *args: str) -> Any:
        self.ran.append(" ".join(args))
        metadata = {"name": "it", "uid": "1", "resourceVersion": "2", "managedFields": []}
        return {"kind": "ConfigMap", "metadata": metadata, "data": {"a": "right"}, "status": {}}


@dataclass
class FakeLab:
    """What an attempt asks of a lab."""

    state: Path
    machines: dict[str, FakeHost]
    kube: FakeKube = field(default_factory=FakeKube)
    problem: str = ""
    target: str = "embedded"

    @property
    def profile(self) -> Any:
        nodes = (SimpleNamespace(name="k8s-master"), SimpleNamespace(name="k8s-node1"))
        return SimpleNamespace(lab="fake", target=self.target, control_plane=nodes[0], nodes=nodes)

    def instance(self) -> str:
        return "1234"

    def checks_of(self, chapter: str) -> list[Any]:
        def prove(lab: Any) -> str:
            require(not self.problem, self.problem)
            return ""

        return [SimpleNamespace(id="ready", claim=f"{chapter} is there", prove=prove)]


HOSTS = "/etc/hosts"
WRITE = f'sh -c cat > "$1" write {HOSTS}'


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    answers: dict[str, Any] = {f"test -e {HOSTS}": "", f"stat -c %a {HOSTS}": "644\n", WRITE: "", f"chmod 644 {HOSTS}": "",
                               "undo it": ""}  # fmt: skip
    host = FakeHost(answers=answers, files={HOSTS: "right\n"})
    return FakeLab(tmp_path, {"k8s-node1": host})  # type: ignore[return-value]


def machine(lab: Lab) -> FakeHost:
    return lab.machines["k8s-node1"]  # type: ignore[return-value]


def kube(lab: Lab) -> FakeKube:
    return lab.kube  # type: ignore[return-value]


def made(id: str = "99-a", begin: Callable[[Attempt], None] = lambda _: None, **more: Any) -> Challenge:
    def claims(one: Attempt) -> Sequence[Claim]:
        def goal() -> str:
            require(one.read("goal").strip() == "reached", "the file says otherwise")
            return "reached"

        return [Claim("it is reached", goal), Claim("it always holds", lambda: "as ever")]

    return Challenge(id=id, chapter="08-protobuf", title="A title", situation="It is so.", goal="Reach it.",
                     hints=("One.", "Two.", "Three."), begin=begin, claims=claims,
                     solution=lambda _: [Typed("echo reached > goal")], **more)  # fmt: skip


def known(*own: Challenge) -> attempt.Find:
    return {one.id: one for one in own}.__getitem__


def unsolved(one: Attempt) -> None:
    one.write("goal", "not yet\n")


def begun(lab: Lab, challenge: Challenge) -> Attempt:
    return attempt.begin(lab, known(challenge), challenge.id, say=lambda _: None)


def test_verify_says_claim_by_claim_what_holds(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    one = begun(lab, made(begin=unsolved))
    assert not one.verify(patience=0)
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == ["✗ it is reached: the file says otherwise", "✓ it always holds: as ever"]
    assert "1 of 2 claims hold; hint() helps, 3 of 3 hints are left" in said
    one.write("goal", "reached")
    assert one.verify(patience=0)
    assert "99-a is solved" in capsys.readouterr().out


def test_hints_come_in_three_steps_and_the_record_counts_them(lab: Lab) -> None:
    challenge = made()
    one = begun(lab, challenge)
    assert [one.hint(), one.hint()] == ["One.", "Two."]
    again = Attempt.saved(lab, known(challenge))  # another process
    assert again and [again.hint(), again.hint()] == ["Three.", "Three."]
    assert [event["number"] for event in learner.events(lab.state) if event["event"] == "hint"] == [1, 2, 3]


def test_a_file_a_command_and_a_namespace_are_given_back_in_reverse(lab: Lab) -> None:
    def begin(one: Attempt) -> None:
        one.space()
        one.undo("k8s-node1", "undo", "it")
        one.change_file("k8s-node1", HOSTS, lambda text: text.replace("right", "wrong"))
        one.change_object("configmap", "it", lambda item: {**item, "data": {"a": "wrong"}}, namespace="default")

    challenge = made(begin=begin)
    begun(lab, challenge)
    before = len(machine(lab).ran), len(kube(lab).ran)
    assert attempt.end(lab, known(challenge), say=lambda _: None)
    assert machine(lab).ran[before[0] :] == [WRITE, f"chmod 644 {HOSTS}", "undo it"]
    back = kube(lab).ran[before[1] :]
    assert back[0].startswith("replace") and '"a": "right"' in back[0] and "resourceVersion" not in back[0]
    assert back[1].startswith("delete namespace -l stackbook.lab/made=true")
    assert not attempt.end(lab, known(challenge)), "nothing is open any more"
    assert not (lab.state / attempt.FILE).exists()


def test_the_copy_is_on_the_disk_before_the_change(lab: Lab) -> None:
    seen: list[Any] = []
    host = machine(lab)
    run = host.run

    def looked(argv: Sequence[str], **more: Any) -> Result:
        if " ".join(argv) == WRITE:
            seen.append(json.loads((lab.state / attempt.FILE).read_text()))
        return run(argv, **more)

    host.run = looked  # type: ignore[assignment,method-assign]
    begun(lab, made(begin=lambda one: one.change_file("k8s-node1", HOSTS, lambda _: "wrong\n")))
    assert [entry["text"] for entry in seen[0]["entries"]] == ["right\n"]
    assert stat.S_IMODE((lab.state / attempt.FILE).stat().st_mode) == 0o600


def test_what_fails_half_way_is_given_back_at_once(lab: Lab) -> None:
    def begin(one: Attempt) -> None:
        one.change_file("k8s-node1", HOSTS, lambda _: "wrong\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begun(lab, made(begin=begin))
    assert machine(lab).ran[-2:] == [WRITE, f"chmod 644 {HOSTS}"]
    assert Attempt.saved(lab, known(made())) is None


def test_what_cannot_be_put_back_stays_in_the_record_and_is_tried_again(lab: Lab) -> None:
    challenge = made(begin=lambda one: (one.space(), one.undo("k8s-node1", "undo", "it")))  # type: ignore[arg-type,return-value]
    begun(lab, challenge)
    machine(lab).answers["undo it"] = (1, "", "no way")
    with pytest.raises(CheckFailed, match="99-a is not given back: command: undo it failed"):
        attempt.end(lab, known(challenge))
    left = Attempt.saved(lab, known(challenge))
    assert left and [entry["kind"] for entry in left.entries] == ["command"]
    machine(lab).answers["undo it"] = ""
    assert attempt.end(lab, known(challenge), say=lambda _: None)


def test_another_challenge_gives_the_open_one_back_first(lab: Lab) -> None:
    first = made("99-a", begin=lambda one: one.undo("k8s-node1", "undo", "it"))
    both = known(first, made("99-b"))
    attempt.begin(lab, both, "99-a", say=lambda _: None)
    said: list[str] = []
    attempt.begin(lab, both, "99-b", say=said.append)
    assert said[0] == "✓ 99-a is given back" and machine(lab).ran[-1] == "undo it"
    stale = Attempt(lab, first, "fake")
    with pytest.raises(InputError, match="99-a is not open on this lab"):
        stale.verify()


def test_the_open_one_goes_on(lab: Lab) -> None:
    challenge = made(begin=lambda one: one.note(seen=one.draw("x", [1, 2, 3])))
    one = begun(lab, challenge)
    one.hint()
    again = begun(lab, challenge)
    assert (again.drawn, again.hints, again.begun) == (one.drawn, 1, one.begun)


def test_a_class_differs_and_a_lab_does_not(lab: Lab) -> None:
    def drawn(seed: str) -> list[int]:
        one = Attempt(lab, made(), seed)
        return [one.draw(f"{number}", range(100)) for number in range(5)]

    assert drawn("one") == drawn("one") != drawn("two")
    other = Attempt(lab, replace(made(), id="99-b"), "one")
    assert [other.draw(f"{number}", range(100)) for number in range(5)] != drawn("one")


def test_without_a_seed_it_is_this_very_lab_that_decides(lab: Lab) -> None:
    assert begun(lab, made()).seed == "fake:1234"
    assert attempt.begin(lab, known(made()), "99-a", "class b", say=lambda _: None).seed == "fake:class b"
    assert attempt.open_on(lab) == "99-a"


def test_one_that_cannot_begin_changes_nothing(lab: Lab) -> None:
    fake: Any = lab
    challenge = made(begin=unsolved, needs=("05-istio/ready",))
    fake.problem = "there is no istiod"
    with pytest.raises(
        InputError, match=r"99-a needs chapter 05: 05-istio is there: there is no istiod — stackbook run --only 05"
    ):
        begun(lab, challenge)
    fake.target = "cluster"
    with pytest.raises(InputError, match="99-a works on machines"):
        begun(lab, replace(challenge, machines=True))
    assert not (lab.state / attempt.FILE).exists() and not (lab.state / "challenges").exists()


def test_a_file_that_is_not_as_expected_is_left_alone(lab: Lab) -> None:
    with pytest.raises(CheckFailed, match="/etc/hosts on k8s-node1 is not as this challenge expects it"):
        begun(lab, made(begin=lambda one: one.change_file("k8s-node1", HOSTS, lambda text: text)))
    assert WRITE not in machine(lab).ran


def test_no_copy_of_a_secret_is_kept(lab: Lab) -> None:
    with pytest.raises(InputError, match="keeps no copy of a Secret"):
        journal.object_entry(lab, "secret", "elasticsearch", "logging")


def test_an_object_that_was_deleted_is_made_again(lab: Lab) -> None:
    entry = journal.object_entry(lab, "configmap", "it")
    kube(lab).fail = "replace"
    assert journal.put_back(lab, [entry]) == []
    assert kube(lab).ran[-1].startswith("create --field-manager=stackbook")


def test_commands_are_shown_with_their_place() -> None:
    text = typed.as_text([Typed("a"), Typed("b", on="m"), Typed("c", on="m"), Typed("d", python=True)], Path("/none"))
    assert text.splitlines() == ["# on this host", "a", "# on m: stackbook shell m", "b", "c", "# in a cell", "d"]


# The real ones that need no lab


@pytest.fixture
def alone(home: Path) -> Path:
    return home


@pytest.mark.parametrize("seed", ["", "b", "c"])
@pytest.mark.parametrize("id", PURE)
def test_unsolved_it_fails_and_its_own_commands_solve_it(id: str, seed: str, alone: Path) -> None:
    lab = session.opened(challenges.find(id).chapter)
    one = lab.challenge(id, seed=seed)
    folder = one.folder
    wrong = [finding for finding in one.findings() if not finding.holds]
    assert wrong and all(finding.seen for finding in wrong)
    one.solve()
    after = one.findings()
    assert all(finding.holds and finding.seen for finding in after), after
    one.end()
    assert not folder.exists() and not (lab.state / attempt.FILE).exists()


@pytest.mark.parametrize("id", PURE)
def test_files_that_are_gone_or_nonsense_are_told_in_a_line(id: str, alone: Path) -> None:
    one = session.opened(challenges.find(id).chapter).challenge(id)
    files = [path for path in one.folder.iterdir() if path.is_file() and path.name not in ("MEANT", "GOAL")]
    for path in files:
        path.write_text("\x00 {{{ nonsense", encoding="utf-8")
    assert any(not finding.holds for finding in one.findings())
    for path in files:
        path.unlink()
    assert any(not finding.holds for finding in one.findings())
    one.end()


# The command line


def test_the_command_line_goes_through_a_challenge(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def ran(*words: str) -> tuple[int, str]:
        status = cli.main(["challenge", *words])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert ran("verify") == (
        2,
        "stackbook: no challenge is open on this lab — stackbook challenge start ID; `stackbook challenge list` lists the ids\n",
    )
    status, said = ran("start", "08-a", "--seed", "x")
    assert status == 0 and "goal: Old and new programs" in said
    assert "08-a  open    A number that is used again" in ran("list", "08")[1]
    assert ran("verify")[0] == 1
    assert ran("hint")[1].startswith("hint 1 of 3: ")
    assert "reserved 2;" in ran("solution")[1]
    assert ran("solution", "--apply")[0] == 0
    assert ran("verify", "08-a")[0] == 0
    assert "08-a  open" in ran("list", "08-a")[1]
    assert ran("end") == (0, "✓ 08-a is given back\n")
    assert "08-a  solved" in ran("list", "08-a")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strt"], "unknown action 'strt' — did you mean 'start'?"),
        (["start"], "challenge start needs the challenge's id — stackbook challenge list"),
        (["start", "08-x"], "there is no challenge '08-x' — did you mean '08-"),
        (["list", "77"], "there is no challenge '77'"),
        (["verify", "--seed", "x"], "challenge verify takes no --seed"),
        (["end", "--apply"], "challenge end takes no --apply"),
        (["hint", "08-x"], "there is no challenge '08-x'"),
    ],
)
def test_bad_words_get_a_line(
    words: list[str], said: str, alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cli.main(["challenge", *words]) == 2
    assert f"stackbook: {said}" in capsys.readouterr().err


def test_a_run_gives_back_what_is_open(alone: Path) -> None:
    said: list[str] = []
    challenging.give_back("embedded", say=said.append)
    assert said == [] and challenging.FILE == attempt.FILE
    one = session.opened("08-protobuf").challenge("08-a")
    challenging.give_back("embedded", say=said.append)
    assert said == ["✓ 08-a is given back"] and not one.folder.exists()


# What requests got


def test_answers_are_counted_from_what_curl_wrote(lab: Lab) -> None:
    text = "Hello MyApp | Version: v1 | <a\n\n#200\nHello MyApp | Version: v2 | <a\n\n#200\nno healthy upstream\n#503\n\n#000\n"
    fake: Any = lab
    fake.kube.exec = lambda *words, **more: Result(words, 0, text, "", 0.0, "fake")
    got = workloads.ask(Attempt(lab, made(), ""), "http://shop/", 4)
    assert (got.total, got.share(), got.share(503)) == (4, 0.5, 0.25)
    assert dict(got.versions()) == {"v1": 1, "v2": 1}
    assert str(got) == "1 × no answer, 2 × 200, 1 × 503"
    fake.kube.exec = lambda *words, **more: Result(words, 1, "", "no such pod", 0.0, "fake")
    with pytest.raises(CheckFailed, match="the client cannot send requests: no such pod"):
        workloads.ask(Attempt(lab, made(), ""), "http://shop/")


def test_solutions_are_shell_that_bash_can_read() -> None:
    """As far as a solution depends on what was drawn alone."""
    for id in PURE:
        challenge = challenges.find(id)
        drawn = {
            "field": "town",
            "place": "Oslo",
            "number": 150,
            "how": "cut",
            "shift": 3,
            "kind": "int64",
            "slip": "slow",
        }
        one = Attempt(SimpleNamespace(state=Path("/none"), profile=SimpleNamespace(lab="x")), challenge, "x")  # type: ignore[arg-type]
        one.drawn = drawn
        for command in challenge.solution(one):
            done = subprocess.run(["bash", "-n", "-c", command.command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
