"""A background process goes last, also where the kernel schedules sessions as groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stackbook.core import priority

LOWEST = 19
"""The last nice value that the kernel knows; CI runs some tests with it already."""
LOWER = "import sys; from pathlib import Path; from stackbook.core import priority; priority.AUTOGROUP = Path(sys.argv[1]); "
LOWER += "priority.lower(by=3, group=7); import os; print(os.nice(0))"


@pytest.mark.parametrize(("leads", "written"), [(True, "7"), (False, "untouched")])
def test_only_the_group_of_a_session_of_its_own_is_changed(tmp_path: Path, leads: bool, written: str) -> None:
    group = tmp_path / "autogroup"
    group.write_text("untouched")
    done = subprocess.run(
        [sys.executable, "-c", LOWER, str(group)], capture_output=True, text=True, check=True, start_new_session=leads
    )
    assert int(done.stdout) == min(os.nice(0) + 3, LOWEST)
    assert group.read_text() == written


def test_a_kernel_without_groups_is_left_alone(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "autogroup"
    done = subprocess.run(
        [sys.executable, "-c", LOWER, str(missing)], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert int(done.stdout) == min(os.nice(0) + 3, LOWEST)


@pytest.mark.skipif(not priority.AUTOGROUP.exists(), reason="this kernel has no scheduling groups for sessions")
def test_the_kernel_takes_it() -> None:
    code = "from stackbook.core import priority; priority.lower(by=1, group=10); print(priority.AUTOGROUP.read_text())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert done.stdout.split()[-2:] == ["nice", "10"]
