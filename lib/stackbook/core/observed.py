"""Who is told of the programs that run on this host without a `Host`: a step of a chapter, while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stackbook.core.results import Result

HERE = "this host"
_watching: list[Callable[[Result], None]] = []


@contextlib.contextmanager
def watching(observe: Callable[[Result], None]) -> Iterator[None]:
    """While the block runs, `observe` is called with each program that is told of; inside another such block, only the inner one is."""
    _watching.append(observe)
    try:
        yield
    finally:
        _watching.remove(observe)


def tell(
    argv: Sequence[str],
    *,
    rc: int = 0,
    stderr: str = "",
    seconds: float = 0.0,
    given: bytes = b"",
    folder: Path | None = None,
    background: bool = False,
) -> None:
    """Tell of a program that has run, or that was started.

    Args:
        argv: the command, as a user would type it; secrets that are known are masked where it is shown.
        rc: its exit status.
        stderr: what it printed there.
        seconds: how long it ran.
        given: its standard input; left out unless it is text.
        folder: its working folder; None for this process's.
        background: whether it still runs.
    """
    try:
        text = "" if b"\0" in given else given.decode()
    except UnicodeDecodeError:
        text = ""
    result = Result(
        tuple(argv), rc, "", stderr, seconds, HERE, given=text, folder=str(folder or ""), background=background
    )
    for observe in _watching[-1:]:
        observe(result)


def wrote(path: Path, text: str) -> None:
    """Tell of a file that a program will read, as the command that writes it."""
    tell(["sh", "-c", f"cat > {path}"], given=text.encode())


def request(method: str, url: str, *, json: str = "", form: bool = False, user: str = "", token: bool = False) -> None:
    """Tell of a request over HTTP, as the curl command for it.

    Args:
        method: GET, POST and so on.
        url: the whole address.
        json: the body.
        form: whether the body is a form; its fields are never a part of the command, which reads them from a file.
        user: who asks; the password is never a part of the command.
        token: whether a token says who asks; the command reads the header with it from a file.
    """
    words = [
        "curl",
        *(["-X", method] if method != ("POST" if form else "GET") else []),
        *(["-u", f"{user}:***"] if user else []),
    ]
    words += ["-H", "@authorization"] if token else []
    words += ["-H", "Content-Type: application/json", "-d", json] if json else []
    words += ["-d", "@form"] if form else []
    tell([*words, url])
