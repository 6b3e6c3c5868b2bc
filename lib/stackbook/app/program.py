"""Modules that are started by `python -m`, apart from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from stackbook.core.errors import StackbookError
from stackbook.core.redact import redact

INTERRUPTED = 130
"""The exit status after an interrupt: 128 and the number of SIGINT, as shells have it."""


def end_with(main: Callable[[], int]) -> NoReturn:
    """Exit with the status of a function. An error of the library becomes one line without secrets, and so does Ctrl-C."""
    try:
        status = main()
    except StackbookError as error:
        print(f"stackbook: {redact(str(error))}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("stackbook: interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
