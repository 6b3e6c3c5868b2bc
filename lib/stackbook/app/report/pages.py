"""Turning the report's data into HTML: Jinja2 fills in the templates beside this file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from stackbook.core.redact import redact

if TYPE_CHECKING:  # every run's start reads the times of earlier runs, which needs no template
    from jinja2 import Environment


def render(template: str, /, **data: Any) -> Markup:
    """Fill in a template: markup in `data` is escaped and secrets are masked, unless a value is already `Markup`.

    Raises:
        jinja2.UndefinedError: the template needs a value that `data` lacks.
    """
    return Markup(_environment().get_template(f"{template}.html.j2").render(data))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def masked(value: Any) -> Any:
        return value if isinstance(value, Markup | int | float) else redact(str(value))

    return Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=masked,
    )


def seconds(value: float) -> str:
    """A duration: seconds below two minutes, then minutes and seconds.

    >>> seconds(3.14159), seconds(190)
    ('3.1 s', '3 min 10 s')
    """
    return f"{value:.1f} s" if value < 120 else f"{int(value) // 60} min {int(value) % 60:02} s"
