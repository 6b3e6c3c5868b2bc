"""`stackbook images`: each image of a lab, which chapters use it, where it comes from, and what the machines have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackbook.cluster import image_import
from stackbook.config import chapters
from stackbook.core.errors import StackbookError

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_HEADS = ("image", "chapters", "source", "reference", "digest", "size", "why")


@dataclass(frozen=True)
class Row:
    """One image of the lab.

    Attributes:
        name: its name in the catalogue.
        chapters: the numbers of the chapters that use it.
        source: `build`, `pull` or `none`.
        reference: the reference that it has on the machines.
        digest: the digest on the machines, else the pinned one; empty if neither is known.
        size: its size according to containerd on a machine; empty if no machine has it.
        why: why it has this source.
    """

    name: str
    chapters: str
    source: str
    reference: str
    digest: str
    size: str
    why: str


def used_by(lab: Lab, name: str) -> list[str]:
    """The numbers of the chapters that use an image."""
    bundles = lab.artifacts.catalogue.bundles
    return [c.number for c in chapters.ALL if any(name in (a, *bundles.get(a, ())) for a in c.artifacts)]


def rows(lab: Lab) -> list[Row]:
    """Every image, in the catalogue's order."""
    there: dict[str, tuple[str, str]] = {}
    if lab.profile.target != "cluster":
        try:
            for host in lab.provider.machines().values():
                there.update(image_import.listed(host))
        except StackbookError:
            pass  # no machine, or containerd is not running there yet: the table says where images will come from
    found = []
    for source in lab.images.sources.all():
        pinned = lab.artifacts.catalogue.image(source.name).digest if source.kind == "pull" else ""
        digest, size = there.get(source.reference, (pinned, ""))
        used = ", ".join(used_by(lab, source.name))
        found.append(Row(source.name, used, source.kind, source.reference, digest[:19], size, source.reason))
    return found


def lines(lab: Lab) -> Iterator[str]:
    """The rows as a table for a terminal."""
    table = [_HEADS, *((r.name, r.chapters, r.source, r.reference, r.digest, r.size, r.why) for r in rows(lab))]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADS))]
    for number, row in enumerate(table):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
