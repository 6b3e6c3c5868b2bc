"""Where things lie: what the environment may name, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeHost
from stackbook.app import cli
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.machines.providers.podman import Embedded

VARIABLES = ("STACKBOOK_CACHE", "STACKBOOK_STATE", "STACKBOOK_RUNS", "XDG_CACHE_HOME", "XDG_STATE_HOME")
CGROUPS = "stat -f -c %T /sys/fs/cgroup"


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("text", ["cache", "./cache", "~/cache", "/a:b", "/a,b", "/a\nb"])
def test_a_folder_that_podman_would_read_otherwise_is_refused(
    variable: str, text: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv(variable, text)
    for words in (["list"], ["run", "--only", "00"], ["reset", "--cache"]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"stackbook: {variable}=") and said.count("\n") == 1
        assert "— set it to an absolute path without a colon, comma or line break" in said
    assert list(home.iterdir()) == []


def test_no_volume_is_ever_named_after_a_relative_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library without the command line, as a notebook uses it."""
    monkeypatch.setenv("STACKBOOK_CACHE", "cache")
    lab = Embedded(Profile(), FakeHost({CGROUPS: "cgroup2fs"}))
    with pytest.raises(InputError, match="STACKBOOK_CACHE=cache is not an absolute path"):
        lab.run_flags(Profile().nodes[0])


@pytest.mark.parametrize("name", ["a folder", "缓存", 'it\'s "mine"'])
def test_spaces_and_other_alphabets_are_taken_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path / name))
    paths.check()
    assert {paths.cache(), paths.states(), paths.runs()} == {tmp_path / name}
    lab = Embedded(Profile(), FakeHost({CGROUPS: "cgroup2fs"}))
    assert f"{tmp_path / name}:/opt/stackbook:ro" in lab.run_flags(Profile().nodes[0])


def test_without_the_variables_it_is_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.cache() == Path("/home/someone/.cache/stackbook")
    assert paths.states() == Path("/home/someone/.local/state/stackbook")
