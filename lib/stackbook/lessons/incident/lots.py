"""What an incident draws: by its seed alone, so that a word gives the same incident on any lab, and another process draws the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from stackbook.lab.attempt import Attempt

T = TypeVar("T")


def pick(attempt: Attempt, name: str, options: Sequence[T]) -> T:
    """One of the options. Without a word of the trainer's, this very lab decides: see `attempt.begin`."""
    return drawn(attempt.seed.partition(":")[2], name, options)


def drawn(word: str, name: str, options: Sequence[T]) -> T:
    """One of the options for a word; each name has a generator of its own."""
    return random.Random(f"{word}:{name}").choice(list(options))
