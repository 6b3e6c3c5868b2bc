"""git submodules, shown with git itself in a temporary folder: two repositories, one of which refers to a commit of the other."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import Output
from stackbook.core import temp_dirs
from stackbook.core.errors import CheckFailed


@dataclass(frozen=True)
class Trial:
    """A folder for repositories, and git without this host's own configuration."""

    root: Path

    def git(self, folder: str, *args: str, files: bool = False, check: bool = True) -> Output:
        """Run git in a folder below the root.

        Args:
            folder: its name.
            args: git's arguments.
            files: allow submodules from local paths, which git refuses by default since CVE-2022-39253.
            check: raise an error if it fails.

        Raises:
            ToolFailed: it failed and `check` is set.
        """
        env = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.root), "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": "4",
            "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "trainer",
            "GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": "trainer@example.com",
            "GIT_CONFIG_KEY_2": "init.defaultBranch", "GIT_CONFIG_VALUE_2": "main",
            "GIT_CONFIG_KEY_3": "protocol.file.allow", "GIT_CONFIG_VALUE_3": "always" if files else "user",
        }  # fmt: skip
        return go_toolchain.call(["git", *args], cwd=self.root / folder, env=env, check=check, timeout=60)

    def repository(self, name: str, files: dict[str, str], message: str) -> str:
        """Create a repository, or add a commit to it; returns the commit's id."""
        folder = self.root / name
        if not folder.exists():
            folder.mkdir()
            self.git(name, "init", "--quiet")
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
        self.git(name, "add", "--all")
        self.git(name, "commit", "--quiet", f"--message={message}")
        return self.head(name)

    def head(self, folder: str) -> str:
        """The commit that a work tree has checked out."""
        return self.git(folder, "rev-parse", "HEAD").text.strip()

    def pinned(self, folder: str, path: str) -> str:
        """The commit of a submodule that a repository's own last commit names (mode 160000 in its tree)."""
        kind, commit = self.git(folder, "ls-tree", "HEAD", path).text.split()[1:3]
        return commit if kind == "commit" else ""

    def files(self, folder: str) -> list[str]:
        """A folder's entries, without git's own."""
        return sorted(path.name for path in (self.root / folder).iterdir() if path.name != ".git")


@contextlib.contextmanager
def trial() -> Iterator[Trial]:
    """A temporary folder for repositories.

    Raises:
        CheckFailed: git is not installed.
    """
    if shutil.which("git") is None:
        raise CheckFailed("git is not installed", fix="apt-get install git")
    with temp_dirs.folder("git") as root:
        yield Trial(root)
