"""The guide's files of chapter 4.1, as printed, and their current versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

Name = Literal["gitea-compose", "drone-compose", "drone-pipeline"]
Other = Literal["actions-workflow", "gitlab-ci"]
"""The guide's pipeline for other systems, of which the guide has no file."""

# The guide's .env, in its order; values that it leaves out (***) are None.
ENV: Mapping[str, str | None] = {
    "DRONE_SERVER_HOST": None,
    "DRONE_SERVER_PROTO": "http",
    "DRONE_RPC_SECRET": None,
    "DRONE_RUNNER_NAME": "drone_runner_1",
    "DRONE_GITEA_SERVER": None,
    "DRONE_GITEA_CLIENT_ID": None,
    "DRONE_GITEA_CLIENT_SECRET": None,
    "DRONE_ADMIN": None,
}


def guide(name: Name) -> str:
    """A file of the guide, letter by letter; *** marks what its author removed."""
    return (files("stackbook.lessons.delivery") / "guide" / f"{name}.yaml").read_text(encoding="utf-8")


def today(name: Name | Other) -> str:
    """The same file, corrected, or its pipeline for another system."""
    return (files("stackbook.lessons.delivery") / "today" / f"{name}.yaml").read_text(encoding="utf-8")


def variables(text: str) -> list[str]:
    """The variables that a compose file refers to, each once, in order.

    >>> variables("a: ${B:-x}${A} $${C}")
    ['B', 'A']
    """
    return list(dict.fromkeys(re.findall(r"(?<!\$)\$\{(\w+)", text)))


def pairs() -> dict[str, tuple[str, str]]:
    """Each file of the guide: as printed, and as it is today."""
    names: tuple[Name, ...] = ("gitea-compose", "drone-compose", "drone-pipeline")
    return {f"{name}.yaml": (guide(name), today(name)) for name in names}
