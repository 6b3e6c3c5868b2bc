"""The manifests that the chapters apply.

``${name}`` is filled in by :class:`string.Template`. Images are named per workload (``image_productpage_v1`` …),
because the official sample has one image per service and version, and the lab's own bookinfo one for all of them.
"""

from pathlib import Path
from string import Template

from stackbook.core.errors import InputError


def render(name: str, **values: str) -> str:
    """The text of a manifest with its placeholders filled in.

    Raises:
        InputError: there is no such manifest, or a placeholder has no value.
    """
    path = Path(__file__).parent / name
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml")))
        raise InputError(f"there is no manifest {name!r}", fix=f"the manifests are: {known}")
    try:
        return Template(path.read_text(encoding="utf-8")).substitute(values)
    except KeyError as error:
        raise InputError(f"{name} needs a value for {error}", fix=f"render({name!r}, {error.args[0]}=…)") from error
