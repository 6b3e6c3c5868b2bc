"""Starting again under sudo with the user's environment, of which nothing stands on a command line.

Proxy settings and package indexes hold passwords, a command line is read by everybody (`ps`), and sudo logs it. So the
environment goes by a file that only the user reads; who is started under sudo reads it and removes it. That is this very file,
run as a program of its own: nothing but Python's own library is imported, and `-I` keeps its neighbours here out of the way.
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
        env: what it is to have in its environment.
        words: its command line.
    """
    folder = Path(tempfile.mkdtemp(prefix="stackbook-sudo-"))
    # The mode from the first moment on, whatever the umask is.
    with os.fdopen(os.open(folder / NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(dict(env), file)
    return [sudo, sys.executable, "-I", str(Path(__file__).resolve()), str(folder / NAME), *words]


def taken(path: Path) -> dict[str, str]:
    """The environment out of the file, which is removed.

    Raises:
        PermissionError: it is a link, another user's than the one who called sudo, or others may read it.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
        seen = os.fstat(file.fileno())
        mine = {os.geteuid(), int(os.environ.get("SUDO_UID", os.geteuid()))}
        if not stat.S_ISREG(seen.st_mode) or seen.st_mode & 0o077 or seen.st_uid not in mine:
            raise PermissionError(f"{path} is not a file that only its owner reads")
        text = file.read()
    path.unlink()
    path.parent.rmdir()
    return {str(name): str(value) for name, value in json.loads(text).items()}


def main(arguments: Sequence[str]) -> NoReturn:
    """Take the environment and start stackbook with it; sudo's own variables stay."""
    env = {**os.environ, **taken(Path(arguments[0]))}
    os.execve(sys.executable, [sys.executable, "-m", "stackbook", *arguments[1:]], env)


if __name__ == "__main__":
    main(sys.argv[1:])
