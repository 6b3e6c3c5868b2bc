"""Kernels that communicate over Unix sockets: no other user of this host can listen to a notebook, and they need no ports.

jupyter_client names the sockets `<ip>-1`, `<ip>-2` …, and takes the first names that do not exist yet (connect.py,
write_connection_file). Two kernels that start at the same time in one folder would take the same names, and get each other's
messages ("Invalid Signature"). So each kernel has its own folder for its sockets and its connection file.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from traitlets import DottedObjectName

from stackbook.app import kernels_ahead
from stackbook.core import temp_dirs
from stackbook.core.errors import HostUnfit
from stackbook.machines import ssh_sockets

# sockaddr_un's sun_path without its last zero (unix(7)).
_LONGEST = 107
_SOCKET = "s"


class LocalKernelClient(AsyncKernelClient):
    """jupyter_client's client of a kernel to which nobody else talks."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers on both channels; jupyter_client's own waits 0.2 s more, for what others may have said.

        Raises:
            RuntimeError: the kernel died, or did not answer within `timeout` seconds.
        """
        begin = time.monotonic()
        while True:
            self.kernel_info()
            with contextlib.suppress(Empty):
                reply = await self.get_shell_msg(timeout=1)
                if reply["msg_type"] == "kernel_info_reply":
                    await self.get_iopub_msg(timeout=0.2)
                    self._handle_kernel_info_reply(reply)
                    return
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if timeout is not None and time.monotonic() - begin > timeout:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")


class LocalKernelManager(AsyncKernelManager):
    """jupyter_client's manager with the ipc transport, in a folder that exists as long as the kernel.

    In a run the kernel's standard error goes to `kernels.log` beside the run's record.
    """

    client_class = DottedObjectName("stackbook.app.ipc_kernel.LocalKernelClient")

    def __init__(self, **kwargs: Any) -> None:
        self._scope = contextlib.ExitStack()
        super().__init__(**{"transport": "ipc", **kwargs})

    async def start_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """See jupyter_client; this creates the folder.

        Raises:
            HostUnfit: the names of all folders for temporary files are too long for a socket.
        """
        self._scope.close()
        folder = _folder(self._scope)
        if run := os.environ.get("STACKBOOK_RUN"):
            kwargs["stderr"] = self._scope.enter_context(kernels_ahead.log(Path(run)))
        self.connection_file, self.ip = str(folder / "kernel.json"), str(folder / _SOCKET)
        if self.provisioner is None:
            self.kernel_id = kwargs.pop("kernel_id", None) or self.kernel_id or str(uuid.uuid4())
            self.provisioner = kernels_ahead.AheadProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
        try:
            await super().start_kernel(*args, **kwargs)
        except BaseException:
            self._scope.close()
            raise
        kernels_ahead.AHEAD.prepare()

    def cleanup_connection_file(self) -> None:
        """See jupyter_client: the last cleanup of a kernel, however it ended; it removes the folder with the file."""
        super().cleanup_connection_file()
        self._scope.close()


def _folder(scope: contextlib.ExitStack) -> Path:
    """A folder in which sockets' names are short enough; it exists until the scope ends."""
    for base in ssh_sockets.bases():
        made = scope.enter_context(temp_dirs.folder("kernel", base))
        if len(os.fsencode(made / _SOCKET)) + len("-00") <= _LONGEST:
            return made
        scope.close()
    raise HostUnfit("the names of a kernel's sockets are too long", fix="set TMPDIR to a folder with a short name")
