"""A real npm with its own home: it neither reads nor writes the user's configuration, and uses no registry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import Output
from stackbook.core import temp_dirs

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

# The lessons install this program instead of @quasar/cli, whose hundreds of packages only the registry has.
TOOL = "demo-cli"
_TOOL_JS = """\
#!/usr/bin/env node
const { mkdirSync, writeFileSync } = require("node:fs");
if (process.argv[2] !== "build") { console.error("usage: demo build"); process.exit(2); }
mkdirSync("dist", { recursive: true });
writeFileSync("dist/index.html", "<!doctype html><title>shop</title>\\n");
console.log("built dist/index.html");
"""

# The path of the program `quasar` in the package @quasar/cli: the field "bin" of its package.json in the registry, as
# printed by `npm view @quasar/cli@VERSION bin` in November 2026.
QUASAR_BIN = {"1.1.0": "./bin/quasar", "2.4.1": "./bin/quasar.js", "5.0.9": "./bin/quasar.js"}


@dataclass(frozen=True)
class Npm:
    """npm with its own home, prefix and working folder.

    Attributes:
        node: the folder of the artifact `node`.
        root: a temporary folder: home, prefix, bin, project.
    """

    node: Path
    root: Path

    @property
    def home(self) -> Path:
        """The place of the user's .npmrc."""
        return self.root / "home"

    @property
    def prefix(self) -> Path:
        """The place of the global npmrc, in etc/."""
        return self.root / "prefix"

    @property
    def project(self) -> Path:
        """The working folder of the guide's commands."""
        return self.root / "project"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment: npm and npx on the PATH, no colours, and no reachable registry."""
        return {
            "PATH": f"{self.root / 'bin'}:{self.node / 'bin'}:{os.defpath}",
            "HOME": str(self.home),
            "npm_config_prefix": str(self.prefix),
            "npm_config_update_notifier": "false",
            "npm_config_offline": "true",
            "npm_config_audit": "false",
            "npm_config_fund": "false",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, command: str, *, check: bool = True, cwd: Path | None = None) -> Output:
        """Run a command line as in the guide, in the project's folder unless `cwd` says otherwise.

        Raises:
            ToolFailed: it failed and `check` is set.
        """
        argv = shlex.split(command)
        argv[0] = str(self.root / "bin" / argv[0])
        folder = cwd or self.project
        return go_toolchain.call(
            argv, shown=tuple(shlex.split(command)), env=self.environment, cwd=folder, check=check, timeout=60
        )  # fmt: skip

    def warnings(self, output: Output) -> list[str]:
        """Npm's warnings."""
        return re.findall(r"^npm warn (.*)$", output.stderr, re.MULTILINE)

    def files(self) -> dict[str, str]:
        """The npmrc files that were written, by their readers."""
        places = {"user": self.home / ".npmrc", "global": self.prefix / "etc" / "npmrc"}
        return {name: path.read_text("utf-8").strip() for name, path in places.items() if path.exists()}

    def forget(self) -> None:
        """Remove the npmrc files."""
        for path in (self.home / ".npmrc", self.prefix / "etc" / "npmrc"):
            path.unlink(missing_ok=True)

    def package(self) -> dict[str, Any]:
        """The project's package.json."""
        found: dict[str, Any] = json.loads((self.project / "package.json").read_text("utf-8"))
        return found


@contextlib.contextmanager
def sandbox(artifacts: Resolver) -> Iterator[Npm]:
    """An npm with a new project that contains `demo-cli-1.0.0.tgz`; its folder is removed afterwards.

    Raises:
        ArtifactError: Node.js could not be obtained.
    """
    node = Path(artifacts.path("node"))
    with temp_dirs.folder("npm") as root:
        npm = Npm(node, root)
        for folder in (npm.home, npm.prefix, npm.project, npm.root / "bin", npm.root / "tool"):
            folder.mkdir()
        for program in ("npm", "npx"):  # the wheel's bin/npm was a link, is a file now, and does not find its modules
            script = npm.root / "bin" / program
            cli = node / "lib/node_modules/npm/bin" / f"{program}-cli.js"
            script.write_text(f'#!/bin/sh\nexec "{node / "bin" / "node"}" "{cli}" "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        _write(npm.root / "tool", npm.project)
        npm.run("npm pack --silent --pack-destination ../project ../tool", cwd=npm.project)
        yield npm


def _write(tool: Path, project: Path) -> None:
    described = {"name": TOOL, "version": "1.0.0", "license": "MIT", "bin": {"demo": "bin/demo.js"}}
    (tool / "package.json").write_text(json.dumps(described), encoding="utf-8")
    (tool / "bin").mkdir()
    (tool / "bin" / "demo.js").write_text(_TOOL_JS, encoding="utf-8")
    shop = {"name": "shop", "version": "1.0.0", "private": True}
    (project / "package.json").write_text(json.dumps(shop), encoding="utf-8")
