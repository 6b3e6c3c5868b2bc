"""The strangers that the live tests plant: all of them are looked for again, and planting twice is planting once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live import strangers
from stackbook.core import paths
from stackbook.core.errors import CommandFailed
from stackbook.machines.providers.belongings import LABEL
from stackbook.machines.transports import Result

MAKE = ("create", "add", "-N", "-A")
REMOVE = ("rm", "delete", "-F", "-X")


class Machine:
    """What is there, by what `Thing` it belongs to; making twice fails."""

    def __init__(self) -> None:
        self.there: dict[str, list[str]] = {thing.name: [] for thing in strangers.THINGS}

    def run(self, argv, *, check=True, **_: Any) -> Result:
        thing = next(t for t in strangers.THINGS if argv in (t.there, *t.make, *t.remove))
        made, text = self.there[thing.name], " ".join(argv)
        assert LABEL not in text
        if argv == thing.there:
            rc = 0 if len(made) == len(thing.make) else 1
        elif argv in thing.make:
            rc = 1 if text in made else 0
            made += [text] if rc == 0 else []
        else:
            rc = 0 if made else 1
            made.clear()
        result = Result(tuple(argv), rc, "", "", 0.0)
        if check and rc:
            raise CommandFailed(result)
        return result


def test_they_are_planted_once_looked_for_and_removed(home: Path) -> None:
    host = Machine()
    everything = len(strangers.THINGS) + len(strangers.files())
    assert len(strangers.missing(host)) == everything
    for _ in range(2):
        strangers.plant(host)
        assert strangers.missing(host) == []
    for _ in range(2):
        strangers.remove(host)
        assert len(strangers.missing(host)) == everything


@pytest.mark.parametrize("number", range(len(strangers.THINGS)))
def test_each_one_is_missed(home: Path, number: int) -> None:
    host, thing = Machine(), strangers.THINGS[number]
    strangers.plant(host)
    host.there[thing.name].pop()
    assert strangers.missing(host) == [thing.name]
    strangers.plant(host)
    assert strangers.missing(host) == []


def test_a_file_that_was_changed_is_missed(home: Path) -> None:
    strangers.plant(Machine())
    (paths.states() / "somebody.txt").write_text("")
    assert strangers.missing(Machine())[0] == str(paths.states() / "somebody.txt")
