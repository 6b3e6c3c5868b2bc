"""Where files are: the cache, the state of a lab, the records of runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stackbook.core import ownership
from stackbook.core.errors import InputError

_RUN = re.compile(r"\d{8}T\d{6}Z(-\d+)?|latest")
_NOT_IN_A_PATH = {":": "a colon", ",": "a comma", "\n": "a line break"}
"""What podman reads as the end of a path in `-v` and `--mount`."""
_OF_PROGRAMS = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter-config",
    "JUPYTER_DATA_DIR": "jupyter-data",
    "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
    "MPLCONFIGDIR": "matplotlib",
}


def _chosen(variable: str) -> Path | None:
    """The folder that an environment variable names; None if it is not set.

    Raises:
        InputError: podman would read it as something else; for example, a relative path is the name of a volume.
    """
    text = os.environ.get(variable, "")
    if not text:
        return None
    problem = next((f"contains {name}" for mark, name in _NOT_IN_A_PATH.items() if mark in text), "")
    if not text.startswith("/"):
        problem = "is not an absolute path"
    if problem:
        shown = text if text.isprintable() else repr(text)
        raise InputError(
            f"{variable}={shown} {problem}", fix="set it to an absolute path without a colon, comma or line break"
        )
    return Path(text)


def _home() -> Path:
    return _chosen("HOME") or Path.home()


def check() -> None:
    """Check every variable that names a folder.

    Raises:
        InputError: the value of one of them is invalid; the error names it.
    """
    for variable in ("STACKBOOK_CACHE", "STACKBOOK_STATE", "STACKBOOK_RUNS", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        _chosen(variable)


def cache() -> Path:
    """The user's cache folder for stackbook."""
    return _chosen("STACKBOOK_CACHE") or (_chosen("XDG_CACHE_HOME") or _home() / ".cache") / "stackbook"


def states() -> Path:
    """The folder of the states of all labs."""
    return _chosen("STACKBOOK_STATE") or (_chosen("XDG_STATE_HOME") or _home() / ".local" / "state") / "stackbook"


def state(lab: str) -> Path:
    """The folder with the state of one lab: kubeconfig and what has been proved. Only its owner can read it."""
    ownership.make(states(), mode=0o700)
    folder = ownership.make(states() / lab, mode=0o700)
    folder.chmod(0o700)
    return folder


def snapshots(lab: str) -> Path:
    """Where the snapshots of one lab are: not in its state, which a reset removes. A lab's name has no dot."""
    return states() / f"{lab}.snapshots"


def written() -> list[Path]:
    """The files of stackbook in the folders of runs and states, which may also hold other files."""
    made = [path for path in _inside(runs()) if _RUN.fullmatch(path.name)]
    made += [programs()] if programs().is_dir() else []
    for lock in _inside(states()):
        if lock.suffix == ".lock":
            made += [path for path in (lock, lock.with_suffix(""), snapshots(lock.stem)) if path.exists()]
    return made


def programs() -> Path:
    """Where programs that run as root under sudo keep their settings and caches, instead of the user's HOME."""
    return states() / ".programs"


def spare_home() -> None:
    """Under sudo, make IPython, Jupyter and matplotlib write below `programs`, in this process and its children."""
    if ownership.user() is None:
        return
    ownership.make(states(), mode=0o700)
    for variable, name in _OF_PROGRAMS.items():
        os.environ[variable] = str(ownership.make(programs() / name, mode=0o700))


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def checkout() -> Path:
    """The folder of this checkout."""
    return Path(__file__).resolve().parents[3]


def notebooks() -> Path:
    """The folder of the chapters."""
    return checkout() / "notebooks"


def runs() -> Path:
    """The folder of the records of runs: `$STACKBOOK_RUNS`, else `runs/` of this checkout."""
    return _chosen("STACKBOOK_RUNS") or checkout() / "runs"
