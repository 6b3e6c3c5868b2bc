"""`buf lint`: buf's own linter with its STANDARD rules, which include those of protobuf's style guide.

https://buf.build/docs/lint/rules/, https://protobuf.dev/programming-guides/style/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import ToolFailed
from stackbook.core import temp_dirs

_FOUND = 100  # buf's exit status if the files break rules or do not compile
_BROKEN = "COMPILE"


@dataclass(frozen=True, order=True)
class Finding:
    """One violation of a rule."""

    file: str
    line: int
    rule: str
    message: str


def lint(buf: Path, folder: Path, path: str) -> list[Finding]:
    """The sorted findings of `buf lint --path PATH` in a folder of protos.

    Args:
        buf: the program.
        folder: the root of imports and package names.
        path: a file or a folder below it; only these files are linted.

    Raises:
        ToolFailed: a file does not compile, or there is none.
    """
    argv = [str(buf), "lint", "--path", path, "--error-format", "json"]
    with temp_dirs.folder("buf") as own:  # buf writes a cache, and would otherwise read the user's settings
        env = {"HOME": str(own), "BUF_CACHE_DIR": str(own)}
        output = go_toolchain.call(argv, shown=("buf", *argv[1:]), cwd=folder, env=env, check=False, timeout=60)
    rows = [json.loads(line) for line in output.text.splitlines()] if output.rc in (0, _FOUND) else []
    if output.rc not in (0, _FOUND) or any(row["type"] == _BROKEN for row in rows):
        raise ToolFailed(output)
    return sorted(Finding(row["path"], row.get("start_line", 0), row["type"], row["message"]) for row in rows)
