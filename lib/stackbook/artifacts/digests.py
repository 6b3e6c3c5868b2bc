"""Digests of files, folders and recipes; the cache uses them as addresses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def key_of(*parts: object) -> str:
    """A short key (32 hex digits) of everything that determines an artifact.

    >>> key_of("a", {"x": 1}) == key_of("a", {"x": 1}), key_of("a") == key_of("b")
    (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def tree_digest(folder: Path) -> tuple[str, int]:
    """A digest of all paths, execute bits and contents below `folder`, and their total size in bytes."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            digest.update(f"l {name} {path.readlink()}\n".encode())
        elif path.is_file():
            mode = "x" if path.stat().st_mode & 0o100 else "f"
            digest.update(f"{mode} {name} {sha256_of(path)}\n".encode())
            size += path.stat().st_size
    return digest.hexdigest(), size


def source_digest(folder: Path) -> str:
    """A digest of a module's own files, without tests, and without nested modules that no `replace` directive uses."""
    lines = []
    go_mod = (folder / "go.mod").read_text()
    nested = [path.parent.relative_to(folder).as_posix() for path in folder.rglob("*/go.mod")]
    foreign = tuple(f"{name}/" for name in nested if f"=> ./{name}" not in go_mod)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.endswith("_test.go") or "testdata/" in name or "/." in f"/{name}":
            continue
        if foreign and name.startswith(foreign):
            continue
        lines.append(f"{name} {sha256_of(path)}")
    return key_of(lines)
