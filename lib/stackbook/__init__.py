"""stackbook: a microservice-stack guide as a lab that really runs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackbook.app.session import bind as bind

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`bind`, imported once it is asked for: the command line does without what it needs."""
    if name == "bind":
        from stackbook.app.session import bind

        return bind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
