"""The order of the tests (`tools/test.sh`): what makes a lab of its own is in the lane that has one lab at a time."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKES_A_LAB = re.compile(r'reset\.reset\(|"reset", "--profile"|from stackbook\.app\.classroom import labs')


def test_each_file_that_makes_a_lab_is_in_the_lane_of_own_labs() -> None:
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    (listed,) = re.findall(r"(?m)^  for name in (airgap .*); do$", script)
    files = {
        path.stem.removeprefix("test_"): path.read_text(encoding="utf-8")
        for path in (ROOT / "tests/live").glob("test_*.py")
    }
    making = {name for name, text in files.items() if MAKES_A_LAB.search(text)}
    assert len(making) > 10 and making <= set(listed.split()) <= set(files)
