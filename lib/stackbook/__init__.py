"""stackbook: a microservice-stack guide as a runnable lab."""

from typing import TYPE_CHECKING, Any

from stackbook.core.version import __version__ as __version__

if TYPE_CHECKING:
    from stackbook.app.session import bind as bind


def __getattr__(name: str) -> Any:
    """Import `bind` at its first use, because the command line does not need it."""
    if name == "bind":
        from stackbook.app.session import bind

        return bind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
