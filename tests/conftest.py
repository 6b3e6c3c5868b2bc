from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with empty folders for cache, state and runs."""
    for name in ("CACHE", "STATE", "RUNS"):
        monkeypatch.setenv(f"STACKBOOK_{name}", str(tmp_path / name.lower()))
    return tmp_path
