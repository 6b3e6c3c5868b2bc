"""What the tests read out of OCI archives."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any


def read_index(archive: Path) -> dict[str, Any]:
    """The archive's index.json."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("index.json")
        assert member is not None
        index: dict[str, Any] = json.load(member)
        return index
