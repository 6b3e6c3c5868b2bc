"""What a notebook binds to: a lab with its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stackbook.analysis import display
from stackbook.app import checks
from stackbook.lab.lab import Lab


def bind(chapter: str, profile: str = "embedded", **parameters: Any) -> Lab:
    """Bind a notebook to its lab, validate its parameters, and say what the target is. Nothing is changed.

    Args:
        chapter: number, name, or both.
        profile: name of a file in `parameters/`, or a path.
        parameters: of the chapter; `stackbook parameters` lists them.

    Raises:
        InputError: something in the profile or in the parameters is wrong.
    """
    lab = opened(chapter, profile, **parameters)
    display.style_plots()
    print(lab.describe())
    return lab


def opened(chapter: str, profile: str | Path = "embedded", **parameters: Any) -> Lab:
    """A lab with its checks, for a chapter; says nothing."""
    return Lab.open(chapter, profile, checks=checks.of, **parameters)
