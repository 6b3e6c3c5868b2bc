"""Binding a notebook to its lab and its checks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython import get_ipython

from stackbook.analysis import display
from stackbook.app import checks
from stackbook.config import namespaces
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean
from stackbook.lab import learner, reading
from stackbook.lab.lab import Lab
from stackbook.lessons import challenges

_PLAIN = (bool, int, float, str, list, dict, tuple, type(None))


def bind(chapter: str, profile: str = "embedded", **parameters: Any) -> Lab:
    """Bind a notebook to its lab, validate its parameters, and print the target. Nothing changes.

    Args:
        chapter: number, name, or both.
        profile: name of a file in `parameters/`, or a path.
        parameters: the chapter's parameters; `stackbook parameters` lists them.

    Raises:
        InputError: the profile or a parameter is wrong, or papermill got an unknown parameter.
    """
    _refuse_unknown(parameters)
    lab = opened(chapter, profile, **parameters)
    namespaces.use(lab.namespaces)
    reading.begin(lab)
    display.style_plots()
    print(lab.describe())
    learner.note(lab.state, "bound", lab.chapter.id)
    return lab


def opened(chapter: str, profile: str | Path = "embedded", **parameters: Any) -> Lab:
    """A lab with its checks and challenges, for a chapter; prints nothing."""
    return Lab.open(chapter, profile, checks=checks.of, challenges=challenges.find, **parameters)


def _refuse_unknown(known: Mapping[str, Any]) -> None:
    """Refuse parameters that papermill injected and no cell uses: papermill only warns about a mistyped name.

    In JupyterLab, a learner may have their own variables. Names in capitals are constants that a cell imported.
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
