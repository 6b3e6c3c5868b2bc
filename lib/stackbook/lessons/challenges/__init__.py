"""The challenges of the chapters 01 to 16: at least three for each chapter."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean
from stackbook.lab.challenge import Challenge

_MODULES = (
    "machines", "kubeadm", "flannel", "kubernetes", "istio", "traffic", "faults", "protobuf", "grpc", "metrics", "tracing",
    "logs", "delivery", "ecosystem", "design", "incident",
)  # fmt: skip


@functools.cache
def every() -> tuple[Challenge, ...]:
    """All challenges, sorted by id."""
    found = [challenge for name in _MODULES for challenge in _module(name).CHALLENGES]
    return tuple(sorted(found, key=lambda challenge: challenge.id))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"stackbook.lessons.challenges.{name}")


def find(id: str) -> Challenge:
    """The challenge with this id.

    Raises:
        InputError: there is no such challenge; the fix suggests a similar id.
    """
    known = {challenge.id: challenge for challenge in every()}
    if id not in known:
        raise InputError(f"there is no challenge {id!r}", fix=did_you_mean(str(id), known, "challenges"))
    return known[id]


def of(chapter: str) -> tuple[Challenge, ...]:
    """The challenges of the chapter with this id."""
    return tuple(challenge for challenge in every() if challenge.chapter == chapter)
