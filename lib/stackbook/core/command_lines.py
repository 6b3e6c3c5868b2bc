"""No process is started with a secret on its command line, whoever starts it and however: `ps` shows those to everybody.

Python tells its audit hooks of each process before it is started (https://docs.python.org/3/library/audit_events.html), and a
hook that raises an exception prevents it. So this holds for every module and every library, and in every kernel of a notebook.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Which of an event's arguments are the words of the command.
_EVENTS = {"subprocess.Popen": (0, 1), "os.exec": (0, 1), "os.posix_spawn": (0, 1), "os.system": (0,)}


class SecretShown(AssertionError):
    """A secret would stand on the command line of a process, where everybody on this host can read it."""


@functools.cache
def guard(shows: Callable[[list[str]], bool]) -> None:
    """From now on, until this process ends, none is started with words of which `shows` says that a secret is among them."""

    def look(event: str, arguments: Sequence[Any]) -> None:
        if event in _EVENTS and shows([word for position in _EVENTS[event] for word in _words(arguments[position])]):
            raise SecretShown("a process is not started with a secret in its arguments: use its standard input")

    sys.addaudithook(look)


def _words(value: Any) -> Iterator[str]:
    """The words of a command, as a text, as bytes, as a path, or as a list of such."""
    if isinstance(value, str | bytes | os.PathLike):
        yield os.fsdecode(value)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _words(item)
