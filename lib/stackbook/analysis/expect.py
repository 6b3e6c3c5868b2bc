"""Expected failures: run an action that must fail, and return its exception as a value.

papermill stops at every error and does not support "raises-exception" cells, so chapters catch expected failures here.
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
        error: the exception's class; subclasses are accepted.
        match: text that the message must contain; case is ignored.

    Raises:
        CheckFailed: nothing or another exception was raised, or the message does not contain `match`.

    >>> expect_failure(lambda: int("x"), ValueError, "invalid literal").args[0][:15]
    'invalid literal'
    """
    try:
        value = action()
    except error as caught:
        if match.lower() not in str(caught).lower():
            raise CheckFailed(
                f"{error.__name__} was raised, but its message {str(caught)!r} does not contain {match!r}"
            ) from caught
        return caught
    except Exception as other:
        raise CheckFailed(f"expected {error.__name__}, got {type(other).__name__}: {other}") from other
    raise CheckFailed(f"expected {error.__name__}, but nothing was raised; the value is {value!r}")
