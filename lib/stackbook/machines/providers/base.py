"""The interface between the chapters and the machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from stackbook.machines.transports import Host

Say = Callable[[str], None]


class Provider(Protocol):
    """Provides machines. `say` receives one line of progress."""

    def provision(self, *, say: Say) -> int:
        """Create what is missing and start what is stopped; returns the number of changes."""

    def machines(self) -> dict[str, Host]:
        """The existing machines by name, the control plane first."""

    def delete(self, *, say: Say) -> int:
        """Remove everything that this provider created; returns how many things it removed."""

    def collect_logs(self, folder: Path) -> None:
        """Save logs that help to explain a failure into `folder`."""
