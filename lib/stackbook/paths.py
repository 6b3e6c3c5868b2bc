"""Where things lie: the cache, the state of a lab, the records of runs."""

from __future__ import annotations

import os
from pathlib import Path

from stackbook import private


def _home() -> Path:
    return Path(os.environ.get("HOME") or "~").expanduser()


def cache() -> Path:
    """The user's cache folder for stackbook."""
    if chosen := os.environ.get("STACKBOOK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "stackbook"


def states() -> Path:
    """The folder of the states of all labs."""
    if chosen := os.environ.get("STACKBOOK_STATE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_STATE_HOME") or _home() / ".local" / "state") / "stackbook"


def state(lab: str) -> Path:
    """The state of one lab: kubeconfig and what has been proved. Only its owner may read it."""
    folder = private.folder(states() / lab)
    folder.chmod(0o700)
    return folder


def checkout() -> Path:
    """The folder of this checkout."""
    return Path(__file__).resolve().parents[2]


def notebooks() -> Path:
    """The folder of the chapters."""
    return checkout() / "notebooks"


def runs() -> Path:
    """The folder of the records of runs: `$STACKBOOK_RUNS`, else `runs/` of this checkout."""
    return Path(os.environ.get("STACKBOOK_RUNS") or checkout() / "runs")
