"""Files that only their owner can open, whatever the umask: keys, tokens, passwords, kubeconfigs.

Setting the mode afterwards is too late: a process that opened the file before can still read it.
"""

from __future__ import annotations

import os
from pathlib import Path

from stackbook.core.redact import Secret


def folder(path: Path) -> Path:
    """Create a folder and its missing parents with mode 0700; existing folders stay as they are."""
    for each in (*reversed(path.parents), path):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)
    return path


def write(path: Path, text: str | Secret) -> Path:
    """Write a file with mode 0600 in one step: a reader sees the old file or the new one, never a part of it.

    If the temporary name already exists, even as a link, it is removed and not written to.
    """
    folder(path.parent)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else text.reveal())
    new.replace(path)
    return path
