"""Strict fakes: a command that a test did not expect fails the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.core.errors import CommandFailed
from stackbook.core.results import Result
from stackbook.machines.transports import Text


@dataclass
class FakeHost:
    """A host that knows just the commands it was told; files are kept in a dictionary."""

    answers: dict[str, str | tuple[int, str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    name: str = "fake"
    ran: list[str] = field(default_factory=list)

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
        text = " ".join(argv)
        self.ran.append(text)
        if text in self.answers:
            answer = self.answers[text]
            rc, out, err = (0, answer, "") if isinstance(answer, str) else answer
        elif argv[0] == "cat" and len(argv) == 2:
            known = argv[1] in self.files
            rc, out, err = (0, self.files[argv[1]], "") if known else (1, "", f"cat: {argv[1]}: No such file")
        else:
            raise AssertionError(f"unexpected command: {text}")
        result = Result(tuple(argv), rc, out, err, 0.0, self.name)
        if secret:
            result = result.hide()
        if check and rc:
            raise CommandFailed(result)
        return result

    def read(self, path: str) -> str:
        return self.files[path]

    def write(self, path: str, text: Text, *, mode: int = 0o644) -> None:
        self.files[path], self.modes[path] = text if isinstance(text, str) else text.reveal(), mode

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        self.files[remote] = local.read_text()
