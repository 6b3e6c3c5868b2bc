"""A repository in Gitea: creating, pushing, a webhook, cloning; all with git itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import Output
from stackbook.core.redact import Secret
from stackbook.lessons.delivery.gitea import USER, Gitea, environment


@dataclass(frozen=True)
class Repository:
    """A repository of Gitea's user."""

    gitea: Gitea
    name: str

    @property
    def path(self) -> str:
        """owner/name."""
        return f"{USER}/{self.name}"

    @property
    def url(self) -> str:
        """Its URL for git, without the password."""
        return f"{self.gitea.url}/{self.path}.git"

    @classmethod
    def create(cls, gitea: Gitea, name: str) -> Repository:
        """Create an empty private repository."""
        gitea.post("/user/repos", {"name": name, "private": True, "default_branch": "main"})
        return cls(gitea, name)

    def hook(self, url: str, secret: Secret) -> None:
        """Add a webhook that sends every push to a URL, signed with a shared secret; Drone does the same on activation."""
        config = {"url": url, "content_type": "json", "secret": secret.reveal()}
        values = {"type": "gitea", "active": True, "events": ["push"], "config": config}
        self.gitea.post(f"/repos/{self.path}/hooks", values)

    def push(self, folder: Path, files: Mapping[str, str | bytes], message: str, *, branch: str = "main") -> str:
        """Commit files in a folder and push them to a branch; returns the commit's id."""
        folder.mkdir(exist_ok=True)
        if not (folder / ".git").exists():
            self.git(folder, "init", "--quiet", "--initial-branch=main")
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        self.git(folder, "add", "--all")
        self.git(folder, "commit", "--quiet", f"--message={message}")
        self.git(folder, "push", "--quiet", self.url, "main" if branch == "main" else f"main:{branch}")
        return self.git(folder, "rev-parse", "HEAD").text.strip()

    def clone(self, folder: Path, commit: str) -> Path:
        """Clone into a new folder, at a commit."""
        self.git(folder.parent, "clone", "--quiet", self.url, str(folder))
        self.git(folder, "checkout", "--quiet", "--detach", commit)
        return folder

    def git(self, folder: Path, *args: str) -> Output:
        """Run git in a folder as the user, without this host's configuration.

        Raises:
            ToolFailed: git failed.
        """
        login = Secret(base64.b64encode(f"{USER}:{self.gitea.password.reveal()}".encode()).decode())
        settings = {
            f"http.{self.gitea.url}/.extraHeader": f"Authorization: Basic {login.reveal()}",
            "user.name": USER,
            "user.email": f"{USER}@example.com",
        }
        env = {**environment(self.gitea.folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        env["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (name, value) in enumerate(settings.items()):
            env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = name, value
        return go_toolchain.call(["git", *args], cwd=folder, env=env, timeout=60)
