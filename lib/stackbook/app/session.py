"""What a notebook binds to: a lab with its checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython import get_ipython

from stackbook.analysis import display
from stackbook.app import checks
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean
from stackbook.lab import learner
from stackbook.lab.lab import Lab
from stackbook.lessons import challenges

_PLAIN = (bool, int, float, str, list, dict, tuple, type(None))


def bind(chapter: str, profile: str = "embedded", **parameters: Any) -> Lab:
    """Bind a notebook to its lab, validate its parameters, and say what the target is. Nothing is changed.

    Args:
        chapter: number, name, or both.
        profile: name of a file in `parameters/`, or a path.
        parameters: of the chapter; `stackbook parameters` lists them.

    Raises:
        InputError: something in the profile or in the parameters is wrong, or papermill was given a parameter that there is not.
    """
    _refuse_unknown(parameters)
    lab = opened(chapter, profile, **parameters)
    display.style_plots()
    print(lab.describe())
    learner.note(lab.state, "bound", lab.chapter.id)
    return lab


def opened(chapter: str, profile: str | Path = "embedded", **parameters: Any) -> Lab:
    """A lab with its checks and challenges, for a chapter; says nothing."""
    return Lab.open(chapter, profile, checks=checks.of, challenges=challenges.find, **parameters)


def _refuse_unknown(known: Mapping[str, Any]) -> None:
    """Refuse what papermill has injected and no cell reads: it warns of a mistyped name, and runs with the default.

    In JupyterLab a learner may have variables of their own. Names in capitals are constants that a cell has imported.
    """
    shell = get_ipython()
    if shell is None or os.environ.get("JPY_SESSION_NAME"):
        return
    given = [
        name
        for name, value in shell.user_ns.items()
        if not name.startswith("_") and not name.isupper() and name not in ("In", "Out") and isinstance(value, _PLAIN)
    ]
    names = ["profile", *known]
    if unknown := [name for name in given if name not in names]:
        raise InputError(f"unknown parameter: {unknown[0]}", fix=did_you_mean(unknown[0], names, "parameters"))
