"""A failure that must happen: run it, catch it, and go on with the error as a value.

papermill stops at every error and knows no "raises-exception" cells, so a chapter catches its expected failures here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from stackbook.core.errors import CheckFailed

E = TypeVar("E", bound=BaseException)


def expect_failure(action: Callable[[], object], error: type[E], match: str = "") -> E:
    """Run `action`, which must raise `error`, and return the exception.

    Args:
        action: called without arguments.
        error: the exception's class; a subclass will do.
        match: text that the message must have, upper and lower case alike.

    Raises:
        CheckFailed: nothing was raised, something else was, or the message lacks `match`.

    >>> expect_failure(lambda: int("x"), ValueError, "invalid literal").args[0][:15]
    'invalid literal'
    """
    try:
        value = action()
    except error as caught:
        if match.lower() not in str(caught).lower():
            raise CheckFailed(f"{error.__name__} was raised, but it says {str(caught)!r} and not {match!r}") from caught
        return caught
    except Exception as other:
        raise CheckFailed(f"expected {error.__name__}, got {type(other).__name__}: {other}") from other
    raise CheckFailed(f"expected {error.__name__}, but nothing failed; the value is {value!r}")
