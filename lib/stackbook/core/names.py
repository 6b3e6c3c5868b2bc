"""Names that a user gives: near misses, and the profiles there are. Quick to import: what only refuses needs no more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stackbook.core.errors import InputError


def parameters_folder() -> Path:
    """The folder of the profiles: `parameters/` of this checkout."""
    return Path(__file__).resolve().parents[3] / "parameters"


def profile_names() -> list[str]:
    """The profiles that can be named, sorted."""
    return sorted(path.stem for path in parameters_folder().glob("*.yaml"))


def profile_path(name: str | Path) -> Path:
    """The file of a profile given by name or by path.

    Raises:
        InputError: there is none.
    """
    text = str(name)
    for candidate in (parameters_folder() / f"{text}.yaml", Path(text)):
        if text and "\0" not in text and len(text) < 4096 and candidate.is_file():
            return candidate
    raise InputError(f"there is no profile {text!r}", fix=did_you_mean(text, profile_names(), "profiles"))


def did_you_mean(word: str, known: Iterable[str], what: str = "names") -> str:
    """The nearest of the known names, or all of them.

    >>> did_you_mean("embeded", ["embedded", "vms"])
    "did you mean 'embedded'?"
    """
    import difflib

    names = list(known)
    if near := difflib.get_close_matches(word, names, n=1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    return f"the {what} are: {', '.join(names) or 'none'}"
