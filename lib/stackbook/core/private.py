"""Files for their owner alone: keys, tokens, passwords, kubeconfigs. Whatever the umask is, nobody else can ever open them.

A mode that is set afterwards comes too late: whoever opened the file before reads it all the same.
"""

from __future__ import annotations

import os
from pathlib import Path

from stackbook.core.redact import Secret


def folder(path: Path) -> Path:
    """Make a folder, and each above it that is missing, with mode 0700; those that are there stay as they are."""
    for each in (*reversed(path.parents), path):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)
    return path


def write(path: Path, text: str | Secret) -> Path:
    """Write a file of mode 0600 in one step: a reader sees the old one or the new one, never half of it.

    What stands there under the temporary name, even a link, is removed and not written to.
    """
    folder(path.parent)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else text.reveal())
    new.replace(path)
    return path
