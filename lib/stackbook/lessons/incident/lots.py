"""The random choices of an incident. They depend only on its seed: a word gives the same incident on any lab, in any process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from stackbook.lab.attempt import Attempt

T = TypeVar("T")


def pick(attempt: Attempt, name: str, options: Sequence[T]) -> T:
    """Choose one of the options by the incident's seed: the trainer's word, or else this lab's own; see `attempt.begin`."""
    return drawn(attempt.seed.partition(":")[2], name, options)


def drawn(word: str, name: str, options: Sequence[T]) -> T:
    """Choose one of the options by a word; each name has its own random generator."""
    return random.Random(f"{word}:{name}").choice(list(options))
