"""Names that a user gives: suggestions for typos, and the available profiles. It imports little, so errors come fast."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stackbook.core.errors import InputError


def parameters_folder() -> Path:
    """The folder of the profiles: `parameters/` of this checkout."""
    return Path(__file__).resolve().parents[3] / "parameters"


def profile_names() -> list[str]:
    """The names of the available profiles, sorted."""
    return sorted(path.stem for path in parameters_folder().glob("*.yaml"))


def profile_path(name: str | Path) -> Path:
    """The file of a profile given by name or by path.

    Raises:
        InputError: no such profile exists.
    """
    text = str(name)
    for candidate in (parameters_folder() / f"{text}.yaml", Path(text)):
        if text and "\0" not in text and len(text) < 4096 and candidate.is_file():
            return candidate
    raise InputError(f"no profile is named {text!r}", fix=did_you_mean(text, profile_names(), "profiles"))


def did_you_mean(word: str, known: Iterable[str], what: str = "names") -> str:
    """Suggest the nearest of the known names, or list all of them.

    >>> did_you_mean("embeded", ["embedded", "vms"])
    "did you mean 'embedded'?"
    """
    import difflib

    names = list(known)
    if near := difflib.get_close_matches(word, names, n=1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    return f"available {what}: {', '.join(names) or 'none'}"
