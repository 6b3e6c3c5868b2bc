"""One question to one machine, with a deadline. It never raises: that there is no answer is an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from stackbook.app.diagnose.snapshot import Answer
from stackbook.core.errors import StackbookError, WaitTimeout
from stackbook.machines.transports import Host


def ask(
    host: Host, argv: Sequence[str], timeout: float, *, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> Answer:
    """What a command says; a deadline that passed, or a machine that was not reached, is the answer's `problem`."""
    try:
        result = host.run(argv, check=False, timeout=timeout, stdin=stdin, env=env)
    except WaitTimeout:
        return Answer(problem=f"no answer within {timeout:.0f} s", at=time.time())
    except StackbookError as error:
        return Answer(problem=error.message.splitlines()[0], at=time.time())
    return Answer(result.stdout, result.stderr, result.rc, at=time.time())
