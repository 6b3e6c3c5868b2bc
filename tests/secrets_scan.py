"""Search for secrets in everything that a run leaves: notebooks, pages, records, logs, and what is committed.

This is on purpose not built on stackbook.core.redact: it is to find what that one misses.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import quote

# The guide prints this join token in full; it was never one of ours.
GUIDES_OWN = ("61fwo7.13hldbyt1oyd6qra",)

SHAPES = {
    # A digit is asked for: two words of six and sixteen letters with a dot between them are Python, not a token.
    "bootstrap token": r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))(?=[a-z.]*\d)[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9_])",
    "JSON web token": r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----\\*n?\s*[A-Za-z0-9+/=]{16}",
    "private key in base64": r"LS0tLS1CRUdJTi(?:BQUklWQVRF|BSU0EgUFJJVkFURS|BFQyBQUklWQVRF|BPUEVOU1NIIFBSSVZBVEUg)",
    "kubeconfig key": r"client-key-data\W{1,6}[A-Za-z0-9+/=]{32,}",
    "certificate key": r"(?i:certificate[ _-]?key)(?:\\n|\W){1,6}[0-9a-f]{64}\b",
    "bearer token": r"(?i:authorization\W{1,6}(?:bearer|basic) )[A-Za-z0-9+/=._~-]{12,}",
    "password": r"(?i:passw(?:or)?d|passphrase|rpc_secret|client_secret)[\\\"']*\s?[:=]\s?[\\\"']*"
    r"(?=[A-Za-z+/_@%^!-]*\d)(?=[0-9+/_@%^!-]*[A-Za-z])[A-Za-z0-9+/_@%^!-]{8,}",
}
_SHAPES = {kind: re.compile(pattern) for kind, pattern in SHAPES.items()}
_EVENT = re.compile(r"/registry/events/[\w.-]+/[\w.-]+\.[0-9a-f]{16}")
"""What etcd calls an event: the object's name, a dot and 16 digits. Where six letters end the name, that has a token's shape."""
_SKIPPED = frozenset({".ipynb_checkpoints", ".git", "__pycache__", ".venv"})


@dataclass(frozen=True)
class Finding:
    """One place where a secret stands. `excerpt` shows where, and no more than three characters of it."""

    path: Path
    line: int
    kind: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}: {self.excerpt}"


def scan(
    paths: Iterable[Path | str], canaries: Iterable[str] = (), *, allowed: Iterable[str] = GUIDES_OWN
) -> list[Finding]:
    """Every secret in these files, and in all files below these folders.

    Args:
        paths: files and folders; each must exist.
        canaries: values that must not stand anywhere, in plain text, JSON, HTML, a URL, hexadecimal or base64.
        allowed: values that may stand there.

    Raises:
        FileNotFoundError: a path does not exist, so nothing could be proved.
        ValueError: a canary is too short to mean anything.
    """
    wanted = [c.strip() for c in canaries]
    if short := [c for c in wanted if len(c) < 6]:
        raise ValueError(f"{len(short)} canaries have less than 6 characters")
    forms = tuple({form: None for canary in wanted for form in _forms(canary)})
    look = partial(_search, forms=forms, allowed=tuple(allowed))
    all_files = list(files(paths))
    if len(all_files) < 50:
        parts = list(map(look, all_files))
    else:  # reading a hundred megabytes takes one processor 10 s
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(look, all_files, chunksize=10))
    return list(dict.fromkeys(finding for part in parts for finding in part))


def command_lines(canaries: Iterable[str], *, proc: Path = Path("/proc")) -> list[Finding]:
    """Every process of this host, those in its containers too, that has one of these values on its command line now."""
    wanted = [canary.strip() for canary in canaries]
    forms = tuple({form: None for canary in wanted for form in _forms(canary)})
    lines = list(proc.glob("[0-9]*/cmdline"))
    if not lines:
        raise FileNotFoundError(f"{proc} has no process")
    found = []
    for path in lines:
        try:
            text = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        found += [finding for finding in _findings(path, text, forms) if finding.kind == "canary"]
    return found


def _search(path: Path, *, forms: tuple[str, ...], allowed: tuple[str, ...]) -> list[Finding]:
    found = []
    for text in _texts(path):
        for value in allowed:
            text = text.replace(value, "(allowed)")
        found += _findings(path, _EVENT.sub("(an event)", text), forms)
    return found


def files(paths: Iterable[Path | str]) -> Iterator[Path]:
    """The files, in order; links to folders are followed only where they are named themselves.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            inner = path.resolve()
            yield from sorted(p for p in inner.rglob("*") if p.is_file() and not _SKIPPED & set(p.parts))
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(path)


def _forms(canary: str) -> Iterator[str]:
    """A value as it may stand in a file."""
    data = canary.encode()
    yield canary
    yield json.dumps(canary)[1:-1]
    yield html.escape(canary)
    yield quote(canary, safe="")
    yield data.hex()
    for shift in range(
        3
    ):  # base64 of a text that has it somewhere: one of three alignments, without the uncertain ends
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[shift] : -1 if len(data) + shift % 3 else None]
        if len(inner) >= 7:
            yield inner


def _texts(path: Path) -> Iterator[str]:
    """What a file says: as it is, and without the wrapping of its format."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    text = data.decode(errors="replace")
    yield text
    if path.suffix in (".html", ".htm"):
        # Highlighting puts tags into the middle of a value.
        yield html.unescape(re.sub(r"<[^>]*>", "", text))
    if path.suffix in (".json", ".ipynb"):
        yield from _leaves(_json(text))
    if path.suffix == ".jsonl":
        for line in text.split("\n"):
            yield from _leaves(_json(line))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _leaves(value: Any) -> Iterator[str]:
    """Each text of some data; a list of lines as one text too, and a key together with its value."""
    if isinstance(value, str):
        yield re.sub(r"\x1b\[[0-9;]*m", "", value)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield re.sub(r"\x1b\[[0-9;]*m", "", "".join(value))
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and not key.startswith("image/"):
                yield f"{key}: {item}"
            else:
                yield from _leaves(item)


def _findings(path: Path, text: str, forms: Iterable[str]) -> Iterator[Finding]:
    for form in forms:
        start = text.find(form)
        while start >= 0:
            yield _finding(path, text, "canary", start, start)
            start = text.find(form, start + len(form))
    for kind, pattern in _SHAPES.items():
        for match in pattern.finditer(text):
            yield _finding(path, text, kind, match.start(), match.start())


def _finding(path: Path, text: str, kind: str, start: int, shown: int) -> Finding:
    before = text[max(0, start - 40) : start].rpartition("\n")[2]
    return Finding(path, text.count("\n", 0, start) + 1, kind, f"{before}{text[shown : shown + 3]}…")
