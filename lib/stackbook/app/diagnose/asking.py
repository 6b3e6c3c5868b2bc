"""One command on one machine, with a deadline. It never raises an error: a missing answer is information, too."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.app.diagnose.snapshot import Answer
from stackbook.core.errors import StackbookError, WaitTimeout
from stackbook.core.results import Result
from stackbook.machines.transports import Host, Text


def ask(
    host: Host, argv: Sequence[str], timeout: float, *, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> Answer:
    """The output of a command; if the deadline passes or the machine cannot be reached, the answer's `problem` says so."""
    try:
        result = host.run(argv, check=False, timeout=timeout, stdin=stdin, env=env)
    except WaitTimeout:
        return Answer(problem=f"no answer within {timeout:.0f} s", at=time.time())
    except StackbookError as error:
        return Answer(problem=error.message.splitlines()[0], at=time.time())
    except (OSError, subprocess.SubprocessError) as error:
        return Answer(problem=f"{type(error).__name__}: {error}", at=time.time())
    return Answer(result.stdout, result.stderr, result.rc, at=time.time())


@dataclass
class Hasty:
    """A host on which no command runs longer than `longest` seconds; it writes nothing."""

    host: Host
    longest: float = 8.0
    name: str = "this host"

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: Text | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        secret: bool = False,
    ) -> Result:
        """See `Host.run`."""
        soon = min(timeout, self.longest)
        return self.host.run(argv, check=check, stdin=stdin, timeout=soon, env=env, secret=secret)

    def read(self, path: str) -> str:
        """See `Host.read`."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        """See `Host.write`."""
        raise AssertionError("a diagnosis writes nothing")

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        raise AssertionError("a diagnosis writes nothing")
