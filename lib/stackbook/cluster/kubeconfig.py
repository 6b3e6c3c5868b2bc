"""Kubeconfig files: the lab's own, and the one of an existing cluster."""

from __future__ import annotations

import os
from pathlib import Path

from stackbook.core import private
from stackbook.core.errors import InputError


def write_kubeconfig(text: str, path: Path) -> int:
    """Keep a kubeconfig where only its owner can read it; returns 1 when it was changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o600:
        return 0
    private.write(path, text)
    return 1


def existing_kubeconfig(path: str) -> Path:
    """The kubeconfig of an existing cluster.

    Raises:
        InputError: there is no such file.
    """
    found = Path(path or os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser()
    if not found.is_file():
        raise InputError(f"there is no kubeconfig at {found}", fix="set kubeconfig: in the profile")
    return found
