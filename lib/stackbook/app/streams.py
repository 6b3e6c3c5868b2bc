"""Standard output and error that can disappear: a closed terminal (EIO), a pipe whose reader has exited (EPIPE).

If they disappear, the work continues, and its record and report are written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_GONE = (errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF)


class Lasting:
    """A stream that drops output once its other end is gone; otherwise, it behaves like the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        self._unless_gone(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """See io.IOBase."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """See io.IOBase."""
        self._unless_gone(self._stream.flush)

    def _unless_gone(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # Otherwise Python would flush the buffer again at the end of the process, and change its exit status to 120.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """While the block runs, printing never raises: neither if the terminal or pipe is gone, nor if it cannot encode a character."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):  # the locales C and GB2312 have no tick
            stream.reconfigure(errors="replace")
    streams = [Lasting(stream) for stream in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
