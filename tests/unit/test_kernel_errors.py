"""The death of a kernel that nobody waits for any more prints no traceback; any other lost exception does."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from stackbook.app import kernel_errors


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    level = logging.getLogger("papermill").level
    yield
    logging.getLogger("papermill").setLevel(level)
    ensure_event_loop().set_exception_handler(None)


async def fail(error: Exception) -> None:
    raise error


async def forgotten(error: Exception) -> None:
    task = asyncio.ensure_future(fail(error))
    await asyncio.sleep(0.01)
    assert task.done()


@pytest.mark.parametrize(("error", "printed"), [(DeadKernelError("Kernel died"), False), (ValueError("no"), True)])
def test_a_lost_exception(error: Exception, printed: bool, caplog: pytest.LogCaptureFixture) -> None:
    kernel_errors.report_once()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        ensure_event_loop().run_until_complete(forgotten(error))
        gc.collect()
    assert ("never retrieved" in caplog.text) == printed


def test_papermill_does_not_print_it_either(caplog: pytest.LogCaptureFixture) -> None:
    kernel_errors.report_once()
    logging.getLogger("papermill").error("Kernel died while waiting for execute reply.")
    assert caplog.text == ""
