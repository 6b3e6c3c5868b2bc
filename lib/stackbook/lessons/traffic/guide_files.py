"""The guide's files of section 2.2.3, as printed, and their current versions."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from stackbook.cluster import manifests
from stackbook.mesh.bookinfo import WORKLOADS

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_RULES = ("reviews", "reviews-subsets")
_PART = "\n---\n"


def guide(name: str) -> str:
    """A file of the guide, letter by letter."""
    return _read("guide", name)


def today(name: str) -> str:
    """A rule of the guide, corrected."""
    return _read("today", name)


def _read(folder: str, name: str) -> str:
    return (files("stackbook.lessons.traffic") / folder / f"{name}.yaml").read_text(encoding="utf-8")


def productpage(lab: Lab) -> str:
    """What the lab deploys of productpage, with the name of the official image."""
    version = lab.artifacts.version("bookinfo")
    images = {
        f"image_{name.replace('-', '_')}": f"docker.io/istio/examples-bookinfo-{name}:{version}" for name in WORKLOADS
    }
    parts = manifests.render("bookinfo.yaml", **images).split(_PART)
    return (
        _PART.join(
            part.strip("\n") for part in parts if re.search(r"^  name: (bookinfo-)?productpage", part, re.MULTILINE)
        )
        + "\n"
    )


def pairs(lab: Lab) -> dict[str, tuple[str, str]]:
    """Each file: as the guide prints it, and as it is today."""
    return {
        "productpage.yaml": (guide("productpage"), productpage(lab)),
        "bookinfo-gateway.yaml": (guide("bookinfo-gateway"), manifests.render("bookinfo-gateway.yaml")),
        **{f"{name}.yaml": (guide(name), today(name)) for name in _RULES},
    }
