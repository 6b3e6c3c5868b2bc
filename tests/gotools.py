"""Marks of the tests that compile Go, with the lab's own toolchain."""

from __future__ import annotations

import os

import pytest


def _there() -> bool:
    if os.environ.get(
        "STACKBOOK_FIRST_RUN"
    ):  # `make test` runs these tests once it has fetched the toolchain: none is left out
        return True
    if os.environ.get("STACKBOOK_GOROOT"):
        return True
    from stackbook.artifacts.resolver import Resolver

    return any(status.name == "go" and status.state == "cached" for status in Resolver.open().status())


MARKS = [
    pytest.mark.slow,
    pytest.mark.toolchain,
    pytest.mark.skipif(not _there(), reason="no Go toolchain in the cache: run `stackbook fetch go`"),
]
