"""Kernels that speak over Unix sockets: nobody else on this host can listen to a notebook, and no port is taken.

jupyter_client names the sockets `<ip>-1`, `<ip>-2` … and takes those that are not there yet (connect.py,
write_connection_file). Two kernels that start together in one folder would take the same ones, and each would get the other's
messages ("Invalid Signature"). So each kernel has a folder of its own, for its sockets and its connection file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from stackbook.core import temp_dirs
from stackbook.core.errors import HostUnfit
from stackbook.machines import ssh_sockets

# sockaddr_un's sun_path without its last zero (unix(7)).
_LONGEST = 107
_SOCKET = "s"


class LocalKernelManager(AsyncKernelManager):
    """jupyter_client's manager with the ipc transport, in a folder that lasts as long as the kernel.

    In a run the kernel's standard error goes to `kernels.log` beside the run's record.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._scope = contextlib.ExitStack()
        super().__init__(**{"transport": "ipc", **kwargs})

    async def start_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """See jupyter_client; the folder is made here.

        Raises:
            HostUnfit: each folder for temporary files has a name too long for a socket.
        """
        self._scope.close()
        folder = _folder(self._scope)
        if run := os.environ.get("STACKBOOK_RUN"):
            # What a kernel says of itself, as when it is ended in the middle of a message, is not for the terminal.
            kwargs["stderr"] = self._scope.enter_context((Path(run) / "kernels.log").open("ab"))
        self.connection_file, self.ip = str(folder / "kernel.json"), str(folder / _SOCKET)
        try:
            await super().start_kernel(*args, **kwargs)
        except BaseException:
            self._scope.close()
            raise

    def cleanup_connection_file(self) -> None:
        """See jupyter_client: the last thing done for a kernel, however it ended; the folder goes with the file."""
        super().cleanup_connection_file()
        self._scope.close()


def _folder(scope: contextlib.ExitStack) -> Path:
    """A folder whose sockets' names are short enough; it stays until the scope ends."""
    for base in ssh_sockets.bases():
        made = scope.enter_context(temp_dirs.folder("kernel", base))
        if len(os.fsencode(made / _SOCKET)) + len("-00") <= _LONGEST:
            return made
        scope.close()
    raise HostUnfit("a kernel's sockets have names that are too long", fix="set TMPDIR to a folder with a short name")
