"""Refuses to start a process with a secret on its command line, because `ps` shows command lines to everybody.

Python calls its audit hooks before it starts a process (https://docs.python.org/3/library/audit_events.html); a hook
that raises an exception prevents the start. So this also covers every library, and every kernel of a notebook.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Which arguments of an event hold the words of the command.
_EVENTS = {"subprocess.Popen": (0, 1), "os.exec": (0, 1), "os.posix_spawn": (0, 1), "os.system": (0,)}


class SecretShown(AssertionError):
    """A secret would be on the command line of a process, where everybody on this host can read it."""


@functools.cache
def guard(shows: Callable[[list[str]], bool]) -> None:
    """Until this process ends, refuse to start any process if `shows` finds a secret in its words."""

    def look(event: str, arguments: Sequence[Any]) -> None:
        if event in _EVENTS and shows([word for position in _EVENTS[event] for word in _words(arguments[position])]):
            raise SecretShown("refused to start a process with a secret in its arguments: pass it by standard input")

    sys.addaudithook(look)


def _words(value: Any) -> Iterator[str]:
    """The words of a command given as text, bytes, a path, or a list of these."""
    if isinstance(value, str | bytes | os.PathLike):
        yield os.fsdecode(value)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _words(item)
