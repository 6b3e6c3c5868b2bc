"""Modules that are started by `python -m`, apart from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from stackbook.core.errors import StackbookError
from stackbook.core.redact import redact


def end_with(main: Callable[[], int]) -> NoReturn:
    """Exit with the status of a function; an error of the library becomes one line without secrets, and its exit status."""
    try:
        status = main()
    except StackbookError as error:
        print(f"stackbook: {redact(str(error))}", file=sys.stderr)
        status = error.exit_status
    sys.exit(status)
