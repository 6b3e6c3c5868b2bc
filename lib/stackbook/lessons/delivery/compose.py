"""Compose files, read by Docker Compose's own library (compose-go), without Docker."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts import go_toolchain
from stackbook.core import observed, private, temp_dirs


@dataclass(frozen=True)
class Config:
    """The result of `docker compose config` for a file.

    Attributes:
        model: the file with its variables filled in; empty if it is refused.
        warnings: its warnings in alphabetical order, without times.
        error: why it refuses the file; empty if it accepts it.
    """

    model: Mapping[str, Any]
    warnings: tuple[str, ...]
    error: str

    def service(self, name: str) -> Mapping[str, Any]:
        """A service of the file."""
        found: Mapping[str, Any] = self.model["services"][name]
        return found

    def variable(self, service: str, name: str) -> str | None:
        """The value of a service's environment variable; None if it has none."""
        value = self.service(service)["environment"].get(name)
        return None if value is None else str(value)


def config(program: Path, text: str, env: Mapping[str, str] | None = None) -> Config:
    """Read a compose file as Docker Compose does.

    Args:
        program: the artifact `compose-config`.
        text: the file's content.
        env: its variables: the content of .env beside it.

    Raises:
        subprocess.TimeoutExpired: no answer within a minute.
    """
    with temp_dirs.folder("compose") as folder:
        (folder / "compose.yaml").write_text(text, encoding="utf-8")
        observed.wrote(folder / "compose.yaml", text)
        lines = [f"{name}='{value}'\n" for name, value in (env or {}).items()]
        private.write(folder / ".env", "".join(lines))
        clean = {"PATH": os.defpath, "COMPOSE_PROJECT_NAME": "guide"}
        argv = [str(program), "compose.yaml"]
        output = go_toolchain.call(argv, cwd=folder, env=clean, check=False, timeout=60)
    warnings, rest = [], []
    for line in output.stderr.splitlines():
        found = re.search(r'level=warning msg="((?:[^"\\]|\\.)*)"', line)
        if found:
            warnings.append(re.sub(r"^\S*/compose\.yaml: ", "", json.loads(f'"{found[1]}"')))
        else:
            rest.append(line)
    if output.rc:
        said = "\n".join(rest).replace(f"{folder}/", "")
        return Config({}, tuple(sorted(warnings)), "\n".join(sorted(said.strip().splitlines())))
    return Config(json.loads(output.stdout), tuple(sorted(warnings)), "")
