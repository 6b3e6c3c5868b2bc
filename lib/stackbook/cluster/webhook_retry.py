"""Retry an apply that failed because the API server's connection to a webhook broke.

The API server keeps its connection to a webhook open. If the pod network is recreated or istiod restarts, the next request
fails on that connection, and the API server does not open another one for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stackbook.core.results import Result
from stackbook.core.waiting import pause

BACK = 20.0
"""Seconds until a webhook is expected to be back."""
# In a transport error, Go's client names the request (`Post "https://…": EOF`). A certificate error does not go away by itself.
_BROKEN = re.compile(r'failed calling webhook .*: Post "[^"]+": (?!.*x509: )')
_UNCHANGED = " unchanged"


def applied(apply: Callable[[], Result]) -> Result:
    """The result of a `kubectl apply`, repeated for up to BACK seconds while a webhook's connection is broken.

    If an earlier try created or changed an object, the result says so instead of "unchanged".
    """
    start = time.monotonic()
    result = apply()
    while not result.ok and _BROKEN.search(result.stderr) and time.monotonic() - start < BACK:
        pause(0.5)
        result = together(result, apply())
    return result


def called(call: Callable[[], Any], error: type[Exception]) -> Any:
    """The result of a request, repeated for up to BACK seconds while it raises `error` for a webhook's broken connection."""
    start = time.monotonic()
    while True:
        try:
            return call()
        except error as caught:
            if not _BROKEN.search(str(caught)) or time.monotonic() - start >= BACK:
                raise
        pause(0.5)


def together(earlier: Result, later: Result) -> Result:
    """The output of a later try; for objects that it found unchanged, with the lines of the earlier try."""
    known = {line.rpartition(" ")[0]: line for line in earlier.lines}
    lines = [
        known.get(line.removesuffix(_UNCHANGED), line) if line.endswith(_UNCHANGED) else line for line in later.lines
    ]
    return replace(later, stdout="".join(f"{line}\n" for line in lines))
