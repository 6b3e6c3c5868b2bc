"""A Debian root file system of which a base layer gets every package that it names.

`debian_layers` leaves out what Debian's packaging needs alone, such as libcrypt1. Some programs need such a package, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from stackbook.artifacts.debian_layers import DebianRoot


class NamedRoot(DebianRoot):
    """The content of the tar of a root file system; a base's own packages are never left out."""

    def closure(self, packages: Iterable[str]) -> tuple[str, ...]:
        """The packages and all that they need, sorted; also those named that no program needs elsewhere."""
        named = tuple(packages)
        return tuple(sorted({*super().closure(named), *(name for name in named if name in self.status)}))
