"""The order of the tests (`tools/test.sh`): what makes a lab of its own is not in the lane of the lab that is there for all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKES_A_LAB = re.compile(r'reset\.reset\(|"reset", "--profile"|from stackbook\.app\.classroom import labs')


def test_each_file_that_makes_a_lab_is_listed_once() -> None:
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    lists = re.findall(r"(?m)^  for name in ([a-z_ ]+); do (?:first|others|elsewhere)\+=", script)
    listed = " ".join(lists).split()
    files = {
        path.stem.removeprefix("test_"): path.read_text(encoding="utf-8")
        for path in (ROOT / "tests/live").glob("test_*.py")
    }
    making = {name for name, text in files.items() if MAKES_A_LAB.search(text)}
    alone = {"vm_kubernetes"}  # it needs this host for itself: `make test-vm`
    assert all(f"tests/live/test_{name}.py" in script for name in alone)
    assert "releases" in files and "releases" not in listed and '-m more "$releases"' in script
    assert len(lists) == 3 and len(listed) == len(set(listed))
    assert len(making) > 10 and making - alone <= set(listed) <= set(files)


def test_what_runs_beside_another_lab_tells_its_traces_apart() -> None:
    """A plain comparison would find the lab of the other lane."""
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    (listed,) = re.findall(r"(?m)^  for name in ([a-z_ ]+); do others\+=", script)
    for name in listed.split():
        text = (ROOT / f"tests/live/test_{name}.py").read_text(encoding="utf-8")
        assert "left_on_this_host(" in text and "reset.compare(" not in text, name


def test_no_live_test_takes_the_newest_run_for_its_own() -> None:
    """Another lane's run may be newer, as all lanes have one folder of runs; each command names its own (`Done.run`)."""
    taken = [
        path.name
        for path in (ROOT / "tests/live").glob("test_*.py")
        if re.search(r"runs\(\) / .latest", path.read_text())
    ]
    assert taken == []


def test_a_part_that_does_not_exist_is_refused() -> None:
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    begin = script.index("  # PARTS names some of them")
    refusal = script[begin : script.index("  wanted()", begin)]
    for parts, status in (("lab own", 0), ("", 0), ("lab ohne", 2)):
        done = subprocess.run(
            ["bash", "-uc", refusal], env={**os.environ, "PARTS": parts}, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, parts
        assert ("unknown part 'ohne'" in done.stderr) == bool(status)


def test_a_lane_that_is_ended_starts_nothing_more_and_cleans_up(tmp_path: Path) -> None:
    """A program that handles the interrupt, as pytest does, is waited for; the lane's next one does not start."""
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    beside = script[script.index("beside() {") : script.index("ended() {")]
    begin = script.index("  for pid in", script.index("finish() {"))
    ending = script[begin : script.index("  if [", begin)]
    program = (
        "import pathlib, sys, time\npathlib.Path(sys.argv[1] + '.began').touch()\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    pathlib.Path(sys.argv[1] + '.clean').touch()\n    sys.exit(2)\n"
    )
    (tmp_path / "work.py").write_text(program)
    work = f"'{sys.executable}' '{tmp_path}/work.py' '{tmp_path}"
    lane = f"lane() {{ {work}/one'; {work}/two'; }}"
    wait = f"until [ -e '{tmp_path}/one.began' ]; do sleep 0.1; done"
    whole = "\n".join(
        ["set -uo pipefail", f"logs='{tmp_path}'", "declare -A lanes=()", beside, lane, "beside it lane", wait, ending]
    )
    done = subprocess.run(["bash", "-c", whole], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.*") if path.suffix in (".began", ".clean")) == [
        "one.began",
        "one.clean",
    ]
