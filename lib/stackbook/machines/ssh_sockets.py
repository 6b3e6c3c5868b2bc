"""The folder for the sockets of OpenSSH's shared connections, which no other user can enter.

Whoever can connect to such a socket can run commands on the machine without a key (ssh_config(5), ControlPath). So each
process has its own folder, created by mkdtemp(3) with mode 0700. When the process ends, it closes its connections and
removes the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stackbook.core import temp_dirs
from stackbook.core.errors import InputError

NAME = "ssh"
# sockaddr_un's sun_path without its last zero (unix(7)); ssh first binds the name with a dot and 16 letters more (mux.c).
_LONGEST, _SSH_ADDS = 107, 17
_LETTERS = 12


def path(who: str) -> Path:
    """The socket for connections to a machine as a user, with a key and known hosts: all that is in `who`.

    Raises:
        InputError: no folder is safe from other users.
    """
    folder = _folder()
    if wrong := _foreign(folder):
        raise InputError(
            f"cannot put the sockets of SSH into {folder}: {wrong}",
            fix="remove it, and set TMPDIR to a folder of your own",
        )
    return folder / hashlib.sha256(who.encode()).hexdigest()[:_LETTERS]


@functools.cache
def _folder() -> Path:
    """This process's folder."""
    refused = []
    for base in bases():
        if wrong := _reachable(base):
            refused.append(f"{base}: {wrong}")
            continue
        made = temp_dirs.of_this_process(NAME, base)
        if len(os.fsencode(made)) + 1 + _LETTERS + _SSH_ADDS <= _LONGEST:
            atexit.register(_hang_up, made)
            return made
        refused.append(f"{base}: the path of a socket in it would be too long")
    raise InputError(
        f"no folder is safe for the sockets of SSH ({'; '.join(refused)})",
        fix="set TMPDIR to a folder of your own, mode 700",
    )


def bases() -> Iterator[Path]:
    """Where to create the folder, best first; skips folders of another user (under sudo)."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if not _foreign(runtime):
        yield runtime
    yield from dict.fromkeys([Path(tempfile.gettempdir()), Path("/tmp")])


def _foreign(folder: Path) -> str:
    """Why other users can enter a folder; empty if they cannot."""
    try:
        seen = folder.lstat()
    except OSError as error:
        return str(error.strerror)
    if stat.S_ISLNK(seen.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(seen.st_mode):
        return "it is not a folder"
    if seen.st_uid != os.geteuid():
        return f"it belongs to the user id {seen.st_uid}"
    return f"its mode is {stat.S_IMODE(seen.st_mode):o}, so other users can enter it" if seen.st_mode & 0o077 else ""


def _reachable(base: Path) -> str:
    """Why another user could replace a folder created here; empty if nobody can."""
    try:
        real = base.resolve(strict=True)
    except OSError as error:
        return str(error.strerror)
    for folder in (real, *real.parents):
        seen = folder.stat()
        if seen.st_uid not in (0, os.geteuid()):
            return f"{folder} belongs to the user id {seen.st_uid}"
        if seen.st_mode & 0o022 and not seen.st_mode & stat.S_ISVTX:
            return f"{folder} is writable by other users"
    return ""


def _hang_up(folder: Path) -> None:
    """Close the connections whose sockets are in a folder."""
    for socket in folder.glob("*"):
        # With the socket named, the machine's name is asked for and not looked at.
        argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "stackbook"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
