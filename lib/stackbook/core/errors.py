"""The exceptions of stackbook.

    StackbookError
    ├── InputError            bad input; exit status 2, nothing was changed
    │   └── HostUnfit         this host cannot run the lab as it is
    ├── TransportError        a machine could not be reached; the command may not have run
    ├── CommandFailed         a command ran and failed; holds its Result
    ├── WaitTimeout           a condition was not met in time; holds what was last seen
    ├── CheckFailed           a check of the lab found something wrong
    └── ArtifactError         a component could not be obtained
        ├── CorruptArtifact   its content is not what its checksum says
        └── ArtifactUnavailable  no source has it

The reader can act on each message; `fix` says how. Secrets in both are masked here, because a message can end up in a
notebook's traceback, a record, a log or on a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.core.redact import redact

if TYPE_CHECKING:
    from stackbook.core.results import Result

EXIT_FAILED = 1
EXIT_INPUT = 2


class StackbookError(Exception):
    """Root of the tree; `fix` says what the reader can do, if that is known."""

    exit_status = EXIT_FAILED

    def __init__(self, message: str, *, fix: str = "") -> None:
        self.message, self.fix = redact(message), redact(fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} — {self.fix}" if self.fix else self.message


class InputError(StackbookError):
    """Bad input: nothing was changed."""

    exit_status = EXIT_INPUT


class HostUnfit(InputError):
    """This host lacks something that the lab needs."""


class TransportError(StackbookError):
    """The machine, not the command, failed."""


class CommandFailed(StackbookError):
    """A command exited with a status other than 0."""

    def __init__(self, result: Result, *, fix: str = "") -> None:
        self.result = result
        lines = [f"{result.command} failed with status {result.rc} on {result.host}"]
        for name, text in (("stderr", result.stderr), ("stdout", result.stdout)):
            tail = text.strip().splitlines()[-15:]
            if tail:
                lines.append(f"{name}: " + "\n        ".join(tail))
        super().__init__("\n".join(lines), fix=fix)


class WaitTimeout(StackbookError):
    """A condition was not met before the deadline.

    Args:
        what: the condition, as it follows "waiting for" ("node k8s-node1 to be Ready").
        seconds: how long the wait took, in seconds.
        last: what was last seen.
        cause: the likely cause, with its evidence (an event, a log line).
    """

    def __init__(self, what: str, seconds: float, *, last: str = "", cause: str = "", fix: str = "") -> None:
        self.what, self.seconds, self.last, self.cause = redact(what), seconds, redact(last), redact(cause)
        message = f"timed out after {seconds:.0f} s waiting for {what}"
        if last:
            message += f"; last seen: {last}"
        if cause:
            message += f"; likely cause: {cause}"
        super().__init__(message, fix=fix)


class CheckFailed(StackbookError):
    """A check of the lab found something wrong."""


class ArtifactError(StackbookError):
    """A component could not be obtained."""


class CorruptArtifact(ArtifactError):
    """The content does not match its checksum."""


class ArtifactUnavailable(ArtifactError):
    """No source has the component."""
