"""A class: labs that do not get in each other's way, refused where they do not fit, and one report of a night."""

from __future__ import annotations

import ipaddress
import json
import socket
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import cli, preflight
from stackbook.app.classroom import commands, labs, nightly
from stackbook.app.preflight import GIB
from stackbook.config import chapters
from stackbook.config.profile import Profile
from stackbook.core import child_processes, ownership, paths
from stackbook.core.errors import HostUnfit, InputError, StackbookError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_no_two_labs_share_a_name_a_subnet_or_a_port() -> None:
    seats = labs.set_up(labs.MOST, nodes=3)
    profiles = [seat.profile for seat in seats]
    networks = [ipaddress.ip_network(profile.subnet) for profile in profiles] + [ipaddress.ip_network(Profile().subnet)]
    assert not [pair for pair in combinations(networks, 2) if pair[0].overlaps(pair[1])]
    assert len({profile.lab for profile in profiles} | {Profile().lab}) == labs.MOST + 1
    assert len({seat.port for seat in seats}) == labs.MOST
    names = [node.name for profile in profiles for node in profile.nodes]
    assert len(set(names)) == len(names) == 3 * labs.MOST


def test_a_profile_that_was_changed_stays() -> None:
    (seat,) = labs.set_up(1)
    changed = seat.file.read_text().replace("192.168.101.", "192.168.150.")
    seat.file.write_text(changed)
    labs.set_up(2)
    assert seat.file.read_text() == changed
    assert [seat.name for seat in labs.seats()] == ["class-1", "class-2"]


def test_what_does_not_fit_is_refused_before_anything_is_made() -> None:
    seats = [labs.Seat(n, labs.folder() / f"class-{n}.yaml") for n in range(1, 5)]
    small, mesh = chapters.find("03"), chapters.find("05")
    labs.demand_memory(seats, nodes=2, last=small, free=5 * GIB)
    with pytest.raises(
        HostUnfit,
        match=r"4 labs through chapter 05 need 12\.0 GiB, but only 5\.0 GiB are available — this host has room for 1 more",
    ):
        labs.demand_memory(seats, nodes=2, last=mesh, free=5 * GIB)
    with pytest.raises(HostUnfit, match="free or add memory"):
        labs.demand_memory(seats, nodes=2, last=mesh, free=GIB)


def test_a_class_without_inotify_instances_is_refused_with_the_command() -> None:
    seats = [labs.Seat(n, labs.folder() / f"class-{n}.yaml") for n in range(1, 5)]
    needed = 4 * preflight.inotify_needed(2)
    labs.demand_inotify(seats, nodes=2, limit=needed + 10, used=10)
    fix = f"sysctl -w fs.inotify.max_user_instances={2 * (needed + 10)}"
    with pytest.raises(
        HostUnfit, match=f"4 labs need {needed} inotify instances, but only 118 of 128 are free — {fix}"
    ):
        labs.demand_inotify(seats, nodes=2, limit=128, used=10)


def test_the_instances_of_others_count() -> None:
    assert preflight.inotify(2, limit=128, used=0).met
    other = preflight.inotify(2, limit=128, used=100)
    assert not other.met
    assert "100 of them in use" in other.found
    assert "max_user_instances=" in other.fix


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up"], "a class has 1 to 16 labs, not 0"),
        (["up", "17"], "a class has 1 to 16 labs, not 17"),
        (["up", "2", "--nodes", "9"], "a lab of a class has 1 to 3 machines, but --nodes is 9"),
        (["up", "2", "--to", "77"], "77"),
        (["down", "3"], "class down takes no number"),
        (["serve"], "there is no class on this host — stackbook class up 4"),
        (["reset"], "there is no class"),
        (["open"], "unknown action 'open'"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "become_root", lambda *_: None)
    assert cli.main(["class", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert not labs.folder().exists()


def test_each_learner_has_notebooks_of_their_own(tmp_path: Path) -> None:
    (seat,) = labs.set_up(1)
    commands.copy_notebooks(seat)
    copies = sorted((seat.work / "notebooks").glob("*.ipynb"))
    assert [copy.name for copy in copies] == sorted(path.name for path in paths.notebooks().glob("*.ipynb"))
    cells = json.loads((seat.work / "notebooks" / "02-kubeadm.ipynb").read_text())["cells"]
    (given,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert f'profile = "{seat.file}"' in given
    copies[0].write_text("the learner's")
    commands.copy_notebooks(seat)
    assert copies[0].read_text() == "the learner's"


def night(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[str]:
    """A night in which these commands fail: `reset class-1`, `run class-2`; returns what is asked for."""
    asked: list[str] = []

    def stackbook(runs: Path, *words: str) -> tuple[int, str]:
        asked.append(f"{words[0]} {Path(words[2]).stem}")
        (runs / "one").mkdir(parents=True, exist_ok=True)
        (runs / "one" / "report.html").write_text("")
        if not (runs / "latest").exists():
            (runs / "latest").symlink_to("one")
        return (1, "✗ because <of this>") if asked[-1] in failing else (0, "good")

    monkeypatch.setattr(nightly, "_stackbook", stackbook)
    return asked


def report() -> tuple[list[dict[str, Any]], str]:
    (data,) = (labs.folder() / "nightly").glob("*.json")
    return json.loads(data.read_text()), data.with_suffix(".html").read_text()


def test_a_night_resets_and_builds_each_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = night(monkeypatch)
    assert nightly.run(labs.set_up(2), chapters.find("03")) == 0
    assert asked == ["reset class-1", "run class-1", "reset class-2", "run class-2"]
    rows, page = report()
    assert [(row["lab"], row["reset"], row["run"]) for row in rows] == [("class-1", 0, 0), ("class-2", 0, 0)]
    assert "2 of 2 labs were rebuilt" in page and page.count(">report</a>") == 2
    assert "✓ class-2" in capsys.readouterr().out


def test_a_lab_that_fails_in_the_night_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = night(monkeypatch, "reset class-1", "run class-2")
    assert nightly.run(labs.set_up(3), chapters.find("03")) == 1
    assert asked == ["reset class-1", "reset class-2", "run class-2", "reset class-3", "run class-3"]
    rows, page = report()
    assert [(row["reset"], row["run"]) for row in rows] == [(1, None), (0, 1), (0, 0)]
    assert "1 of 3 labs were rebuilt" in page and "because &lt;of this&gt;" in page


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[labs.Seat]:
    """A class of one lab that is there, on a free port."""
    monkeypatch.setattr(labs, "PORT", child_processes.free_port())
    seats = labs.set_up(1)
    ownership.make(paths.state(seats[0].name))
    (paths.state(seats[0].name) / "instance").write_text("x")
    return seats


def test_a_port_that_is_taken_is_refused_before_any_server_starts(
    served: list[labs.Seat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.subprocess, "Popen", lambda *_, **__: pytest.fail("a server was started"))
    with socket.create_server(("127.0.0.1", served[0].port)), pytest.raises(InputError, match="of class-1 is in use"):
        commands.serve(served)


def test_a_server_that_ends_is_named(served: list[labs.Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.sys, "executable", "false")
    with pytest.raises(StackbookError, match="the JupyterLab of class-1 ended with status 1"):
        commands.serve(served)
