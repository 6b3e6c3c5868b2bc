"""The seam between the chapters and the machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from stackbook.machines.transports import Host

Say = Callable[[str], None]


class Provider(Protocol):
    """Where machines come from. `say` takes one line of progress."""

    def provision(self, *, say: Say) -> int:
        """Make what is missing, start what is stopped; returns how many things were changed."""

    def machines(self) -> dict[str, Host]:
        """The machines by name, the control plane first; only those that exist."""

    def delete(self, *, say: Say) -> int:
        """Remove everything that this provider made; returns how many things were removed."""

    def collect_logs(self, folder: Path) -> None:
        """Put what explains a failure into `folder`."""
