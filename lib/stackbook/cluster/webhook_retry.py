"""An apply that failed because the API server's connection to a webhook broke, and how it is tried again.

The API server keeps its connection to a webhook. If the pod network is recreated or istiod restarts, the next request
finds that the connection has gone, and is not sent on another one.
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
# Of an error in transport Go's client names the request (`Post "https://…": EOF`). What is wrong with a certificate stays wrong.
_BROKEN = re.compile(r'failed calling webhook .*: Post "[^"]+": (?!.*x509: )')
_UNCHANGED = " unchanged"


def applied(apply: Callable[[], Result]) -> Result:
    """The result of a `kubectl apply`, run again for up to BACK seconds while a webhook's connection is a broken one.

    Where an earlier try has made or changed an object, the result says so, and not that it is unchanged.
    """
    start = time.monotonic()
    result = apply()
    while not result.ok and _BROKEN.search(result.stderr) and time.monotonic() - start < BACK:
        pause(0.5)
        result = together(result, apply())
    return result


def called(call: Callable[[], Any], error: type[Exception]) -> Any:
    """What a request returns, sent again for up to BACK seconds while it raises `error` for a webhook's broken connection."""
    start = time.monotonic()
    while True:
        try:
            return call()
        except error as caught:
            if not _BROKEN.search(str(caught)) or time.monotonic() - start >= BACK:
                raise
        pause(0.5)


def together(earlier: Result, later: Result) -> Result:
    """A later try, with the lines of an earlier one for the objects that it found unchanged."""
    known = {line.rpartition(" ")[0]: line for line in earlier.lines}
    lines = [
        known.get(line.removesuffix(_UNCHANGED), line) if line.endswith(_UNCHANGED) else line for line in later.lines
    ]
    return replace(later, stdout="".join(f"{line}\n" for line in lines))
