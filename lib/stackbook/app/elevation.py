"""Starting again under sudo with the user's environment, without putting any of it on a command line.

Proxy settings and package indexes can contain passwords; everybody can read a command line (`ps`), and sudo logs it. So the
environment is passed in a file that only the user can read; the program under sudo reads and removes it. That program is
this file: it imports only Python's standard library, and `-I` hides the other modules of its folder.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

NAME = "environment.json"


def command(sudo: str, env: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """The command that starts stackbook again under sudo.

    Args:
        sudo: path of sudo.
        env: the environment that it will have.
        words: its command-line arguments.
    """
    folder = Path(tempfile.mkdtemp(prefix="stackbook-sudo-"))
    # The file has this mode from the start, whatever the umask is.
    with os.fdopen(os.open(folder / NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(dict(env), file)
    return [sudo, sys.executable, "-I", str(Path(__file__).resolve()), str(folder / NAME), *words]


def taken(path: Path) -> dict[str, str]:
    """Read the environment from the file, and remove the file.

    Raises:
        PermissionError: the file is a link, does not belong to the user who called sudo, or is readable for others.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
        seen = os.fstat(file.fileno())
        mine = {os.geteuid(), int(os.environ.get("SUDO_UID", os.geteuid()))}
        if not stat.S_ISREG(seen.st_mode) or seen.st_mode & 0o077 or seen.st_uid not in mine:
            raise PermissionError(f"{path} is not a file that only its owner can read")
        text = file.read()
    path.unlink()
    path.parent.rmdir()
    return {str(name): str(value) for name, value in json.loads(text).items()}


def main(arguments: Sequence[str]) -> NoReturn:
    """Set the environment and start stackbook in it; sudo's own variables stay."""
    env = {**os.environ, **taken(Path(arguments[0]))}
    os.execve(sys.executable, [sys.executable, "-m", "stackbook", *arguments[1:]], env)


if __name__ == "__main__":
    main(sys.argv[1:])
