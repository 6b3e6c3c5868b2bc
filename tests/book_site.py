"""The book of the committed chapters, built once for all tests that read it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-book" / "bin" / "python"


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make book` runs."""
    if not PYTHON.exists():
        reason = "the book's packages are not installed: make book"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    command = [str(PYTHON), str(ROOT / "tools" / "book" / "build.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def site(own: Path) -> Path:
    """The folder of the site: `tools/test.sh` builds it once, for the tests of its pages and those in a browser.

    Args:
        own: where it is built if these tests run alone.
    """
    logs = os.environ.get("STACKBOOK_TEST_LOGS")
    folder = Path(logs) / "book" if logs else own
    if not (folder / "README.html").exists():
        done = build("--output", str(folder))
        assert done.returncode == 0, done.stderr[-3000:]
    return folder
