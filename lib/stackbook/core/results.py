"""The result of a command."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace

from stackbook.core.redact import MASK, Secret, redact


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a command. `seconds` is wall time; output is text with undecodable bytes replaced; `given` is its input.

    `folder` is its working folder, if that is not this process's; a command in the `background` has been started, and may still run.

    If the output of a command holds a secret, `stdout` and `stderr` are `***` wherever the Result goes: to an observer,
    into an error, onto a page. Only `reveal` returns what the command printed.
    """

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    seconds: float
    host: str = "local"
    hidden: Secret | None = None
    given: str = field(default="", repr=False)
    folder: str = ""
    background: bool = False

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.rc == 0

    @property
    def command(self) -> str:
        """The command, ready to paste into a shell, with secrets masked."""
        return redact(shlex.join(self.argv))

    @property
    def lines(self) -> list[str]:
        """The lines of stdout that are not blank."""
        return [line for line in self.stdout.splitlines() if line.strip()]

    def hide(self) -> Result:
        """The same Result with its output hidden."""
        if self.hidden is not None:
            return self
        return replace(self, stdout=MASK, stderr=MASK, hidden=Secret(self.stdout, remember=False))

    def reveal(self) -> str:
        """Its stdout, even if it is hidden."""
        return self.stdout if self.hidden is None else self.hidden.reveal()

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name}={redact(text)!r}" for name, text in (("stdout", self.stdout), ("stderr", self.stderr))
        )
        return f"Result({self.command!r}, rc={self.rc}, {said}, host={self.host!r})"
