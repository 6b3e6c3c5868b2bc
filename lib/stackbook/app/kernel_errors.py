"""The death of a kernel is reported once: in the outcome of its chapter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any


def report_once() -> None:
    """Keep nbclient and asyncio from printing the death of a kernel as well.

    After Ctrl-C, the task that waited for the kernel's answer ends with DeadKernelError, and nobody asks for its result. asyncio
    would print it with a traceback, on top of the one line that the command prints.
    """
    from jupyter_core.utils import ensure_event_loop

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    ensure_event_loop().set_exception_handler(_handle)


def _handle(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    from nbclient.exceptions import DeadKernelError

    if not isinstance(context.get("exception"), DeadKernelError):
        loop.default_exception_handler(dict(context))
