"""Kubeconfig files: the lab's own, and the one context of an existing cluster that a profile names.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackbook.core import private
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean

EXISTING = "existing.kubeconfig"
"""File name of the copy with one context, in the lab's state. An embedded lab of the same name uses another file name."""
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_KINDS = ("clusters", "users", "contexts")


@dataclass(frozen=True)
class Existing:
    """One context of a kubeconfig.

    Attributes:
        files: the files that were read.
        context: its name.
        server: the API server's address.
        user: the user of the context.
        text: a kubeconfig with only this context; it may contain keys.
    """

    files: tuple[Path, ...]
    context: str
    server: str
    user: str
    text: str

    def __str__(self) -> str:
        return f"context {self.context}, server {self.server}, user {self.user}"

    def __repr__(self) -> str:
        return f"Existing({self})"


def existing(path: str, context: str = "", *, namespace: str = "") -> Existing:
    """Read the context of an existing cluster from the files that kubectl would read.

    Args:
        path: a file, or several separated by colons; empty for KUBECONFIG, else ~/.kube/config.
        context: its name; may be empty if there is only one.
        namespace: the namespace that the context names in `text`; if empty, the file decides.

    Raises:
        InputError: there is no such file or context, a file is broken, or there are several contexts and none is named.
    """
    given = path or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = tuple(Path(part).expanduser() for part in given.split(os.pathsep) if part)
    there = tuple(file for file in files if file.is_file())
    if not there:
        raise InputError(f"there is no kubeconfig at {given}", fix="set kubeconfig: in the profile")
    merged: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for file in there:
        for kind, entries in _entries(file).items():
            for name, entry in entries.items():
                merged[kind].setdefault(name, entry)  # like kubectl: the first file that has a name wins
    contexts = merged["contexts"]
    if not contexts:
        raise InputError(f"{given} has no context", fix="an administrator of the cluster makes a kubeconfig")
    if not context and len(contexts) > 1:
        raise InputError(
            f"{given} has several contexts, and the profile names none",
            fix=f"set context: in the profile, one of: {', '.join(sorted(contexts))}",
        )
    name = context or next(iter(contexts))
    if name not in contexts:
        raise InputError(f"{given} has no context {name!r}", fix=did_you_mean(name, sorted(contexts), "contexts"))
    chosen = contexts[name]
    cluster, user = str(chosen.get("cluster", "")), str(chosen.get("user", ""))
    if cluster not in merged["clusters"] or not merged["clusters"][cluster].get("server"):
        raise InputError(
            f"context {name} of {given} names the cluster {cluster!r}, which is missing", fix="correct the file"
        )
    only = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": cluster, "cluster": merged["clusters"][cluster]}],
        "users": [{"name": user, "user": merged["users"].get(user, {})}],
        "contexts": [{"name": name, "context": {**chosen, "namespace": namespace} if namespace else chosen}],
    }
    server = str(merged["clusters"][cluster]["server"])
    return Existing(there, name, server, user, yaml.safe_dump(only, sort_keys=False))


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """The named entries of one file, with absolute paths."""
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        found = {
            kind: {str(item["name"]): dict(item[kind[:-1]] or {}) for item in data.get(kind) or ()} for kind in _KINDS
        }
    except (yaml.YAMLError, OSError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = type(error).__name__  # not the error's text, which may quote a key
        raise InputError(
            f"{file} cannot be read as a kubeconfig ({reason})", fix="kubectl config view says more"
        ) from None
    for kind in ("clusters", "users"):
        for entry in found[kind].values():
            _absolute(entry, file.parent)
    return found


def _absolute(entry: dict[str, Any], folder: Path) -> None:
    for name in _PATHS:
        if isinstance(entry.get(name), str) and entry[name]:
            entry[name] = str(folder.absolute() / entry[name])
    program = entry.get("exec")
    if isinstance(program, Mapping) and "/" in str(program.get("command", "")):
        entry["exec"] = {**program, "command": str(folder.absolute() / str(program["command"]))}


def write_kubeconfig(text: str, path: Path) -> int:
    """Write a kubeconfig that only its owner can read; returns 1 if it changed, else 0."""
    if path.exists() and path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o600:
        return 0
    private.write(path, text)
    return 1
