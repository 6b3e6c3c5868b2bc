"""Kernels that speak over Unix sockets: nobody else on this host can listen to a notebook, and no port is taken."""

from __future__ import annotations

from jupyter_client.manager import AsyncKernelManager


class LocalKernelManager(AsyncKernelManager):
    """jupyter_client's manager with the ipc transport."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{"transport": "ipc", **kwargs})
