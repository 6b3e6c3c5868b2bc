from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackbook.app import import_patch

import_patch.spare_grammar()
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_secrets() -> Iterator[None]:
    """The secrets that a test makes are its own: the next one's texts are not searched for them."""
    from stackbook.core import redact

    before = dict(redact._known)
    yield
    redact._known.clear()
    redact._known.update(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with empty folders for cache, state and runs."""
    for name in ("CACHE", "STATE", "RUNS"):
        monkeypatch.setenv(f"STACKBOOK_{name}", str(tmp_path / name.lower()))
    return tmp_path
