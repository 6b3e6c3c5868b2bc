"""The commands that `stackbook commands` prints, typed on a lab of their own, lead to the state that the chapters lead to.

First the notebooks run, and the state is noted. Then the machines are made anew, and the printed commands are typed (`by_hand`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from by_hand import Hand
from lab_state import State, differences, taken
from labtools import keep_evidence, left_on_this_host, stackbook
from stackbook.app import reset
from stackbook.config.profile import Profile
from stackbook.lab.lab import Lab

pytestmark = [pytest.mark.live, pytest.mark.more]

PROFILE = """\
target: embedded
lab: sbhand
nodes:
  - {name: hand-master, address: 192.168.86.3}
  - {name: hand-node1, address: 192.168.86.4}
subnet: 192.168.86.0/24
gateway: 192.168.86.2
"""
FIRST = ("02", "03", "04", "05", "06")
LATER = ("10", "11", "12")


@dataclass
class Recorded:
    """What the chapters printed as commands, and the state after them; and the hand that types, on machines made anew."""

    profile: Path
    folder: Path
    printed: dict[str, str] = field(default_factory=dict)
    after: dict[tuple[str, ...], State] = field(default_factory=dict)
    hand: Hand | None = None
    complete: set[tuple[str, ...]] = field(default_factory=set)

    def run(self, *words: str) -> None:
        done = stackbook("run", "--profile", str(self.profile), *words, timeout=2400, env=self.environment)
        if done.status:
            keep_evidence(done.output)
            pytest.fail(done.output[-4000:])

    @property
    def environment(self) -> dict[str, str]:
        """A folder of its own for the records: other labs run chapters meanwhile, and the newest run is printed."""
        return {"STACKBOOK_RUNS": str(self.folder / "runs")}

    def lab(self) -> Lab:
        return Lab.open("05-istio", self.profile)

    def note(self, chapters: tuple[str, ...]) -> None:
        """Keep the commands of these chapters and the state after them."""
        for chapter in chapters:
            done = stackbook("commands", chapter, env=self.environment)
            assert done.status == 0, done.output
            self.printed[chapter] = done.output
            (self.folder / f"commands-{chapter}.sh").write_text(done.output)
        lab = self.lab()
        Hand(lab, self.folder, say=lambda text: None).settle(180)
        self.after[chapters] = taken(lab)

    def typed(self, chapters: tuple[str, ...]) -> list[str]:
        """Type the commands of these chapters; returns what is different from the state after the chapters."""
        if self.hand is None:
            self.hand = Hand(self.lab(), self.folder, say=lambda text: print(text, flush=True))
        for chapter in chapters:
            print(f"chapter {chapter}, typed", flush=True)
            self.hand.type(self.printed[chapter])
        self.hand.settle(180)
        self.complete.add(chapters)
        return differences(self.after[chapters], taken(self.hand.lab))


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The chapters have run, and the machines are new: chapter 01 alone has made them."""
    folder = tmp_path_factory.mktemp("hand")
    profile = folder / "hand.yaml"
    profile.write_text(PROFILE)
    before = reset.snapshot()
    found = Recorded(profile, folder)
    try:
        found.run("--to", "06")
        found.note(FIRST)
        if any(item.name == test_later_chapters_typed_by_hand.__name__ for item in request.session.items):
            found.run(*(word for chapter in LATER for word in ("--only", chapter)))
            found.note(LATER)
        assert reset.reset(Profile.load(profile), say=lambda text: None) == []
        found.run("--to", "01")
        yield found
    finally:
        left = reset.reset(Profile.load(profile), say=lambda text: None)
    assert left == []
    assert left_on_this_host(profile, before) == []


def test_chapters_02_to_06_typed_by_hand(recorded: Recorded) -> None:
    found = recorded.typed(FIRST)
    assert found == [], "\n".join(found)


def test_a_command_that_is_left_out_is_found(recorded: Recorded) -> None:
    """Without the label that has sidecars injected, the state is another one, and the comparison says so."""
    if recorded.hand is None or FIRST not in recorded.complete:
        pytest.skip("needs the typed commands of chapters 02 to 06")
    kube = recorded.hand.lab.kube
    before = taken(recorded.hand.lab)
    kube.kubectl("label", "namespace", "default", "istio-injection-")
    try:
        found = differences(before, taken(recorded.hand.lab))
    finally:
        kube.kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
    assert found == [
        'Namespace default, labels.istio-injection: "enabled" by the chapters, nothing by the typed commands'
    ]


def test_later_chapters_typed_by_hand(recorded: Recorded) -> None:
    """Chapters 10 to 12, on the lab that was made by typing."""
    if FIRST not in recorded.complete:
        pytest.skip("needs the typed commands of chapters 02 to 06")
    found = recorded.typed(LATER)
    assert found == [], "\n".join(found)
