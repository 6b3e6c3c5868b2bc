from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots are kept: $STACKBOOK_DIAGNOSTICS/browser, else pytest's own folder."""
    kept = os.environ.get("STACKBOOK_DIAGNOSTICS")
    folder = Path(kept) / "browser" if kept else tmp_path_factory.mktemp("browser")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
