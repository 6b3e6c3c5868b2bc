"""The package managers that install what a lockfile pins, before web pages are built: pnpm, and Yarn 1."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_RESOLVED = re.compile(r"Progress: resolved (\d+), reused (\d+), downloaded (\d+)")
_HOSTS = re.compile(r'^(  resolved ")https://(?:registry\.yarnpkg\.com|registry\.npmjs\.org)/', re.MULTILINE)


class Output(Protocol):
    """What a package manager says while it installs: `done` of `total` packages are there."""

    done: int
    total: int

    def read(self, text: str) -> str:
        """Take one line; returns what of it may explain a failure, or an empty string."""
        ...


@dataclass(frozen=True)
class Manager:
    """A package manager.

    Attributes:
        name: its name, which is also that of its package in npm's registry.
        script: its program in that package, for Node.js.
        lockfile: the name of the file that pins packages.
        install: the command that installs what the lockfile pins, and nothing else. No scripts of packages run.
        settings: environment variables that are always the same.
        folders: variable → folder for all that it keeps, below the folder for packages.
        variables: npm's setting for the network → the variable in which the package manager reads it.
        prepare: changes the sources before the installation; gets their folder and the address of npm's registry.
        output: makes a reader of its output.
    """

    name: str
    script: str
    lockfile: str
    install: tuple[str, ...]
    settings: Mapping[str, str]
    folders: Mapping[str, str]
    variables: Mapping[str, str]
    prepare: Callable[[Path, str], None]
    output: Callable[[], Output]


class _PnpmOutput:
    def __init__(self) -> None:
        self.done = self.total = 0

    def read(self, text: str) -> str:
        if found := _RESOLVED.search(text):
            self.total, self.done = int(found[1]), int(found[2]) + int(found[3])
            return ""
        return text.strip()


class _YarnOutput:
    """Yarn's JSON lines; of its steps, only the one that fetches counts packages."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self._fetching = False

    def read(self, text: str) -> str:
        if not text.startswith("{"):
            return text.strip()
        try:
            line = json.loads(text)
            kind, data = str(line["type"]), line["data"]
        except (ValueError, KeyError, TypeError):
            return text.strip()
        if kind == "step":
            self._fetching = str(data["message"]).startswith("Fetching")
        elif kind == "progressStart" and self._fetching:
            self.total = int(data["total"])
        elif kind == "progressTick" and self._fetching:
            self.done = int(data["current"])
        elif kind == "error":
            return f"[ERROR] {str(data).partition(chr(10))[0]}"
        elif kind == "info":
            return str(data)
        return ""


def _as_it_is(_folder: Path, _registry: str) -> None:
    """Change nothing."""


def _one_registry(folder: Path, registry: str) -> None:
    """Let Yarn fetch from the user's registry: its lockfile names hosts, and Yarn asks those instead. Checksums stay as they are."""
    file = folder / "yarn.lock"
    address = registry.rstrip("/").replace("\\", r"\\")
    file.write_text(_HOSTS.sub(rf"\g<1>{address}/", file.read_text(encoding="utf-8")), encoding="utf-8")


# The lockfile decides which packages there are, so no scripts of packages run, and nothing is asked about their age.
PNPM = Manager(
    name="pnpm",
    script="bin/pnpm.mjs",
    lockfile="pnpm-lock.yaml",
    install=(
        "pnpm", "install", "--frozen-lockfile", "--prefer-offline", "--ignore-scripts", "--reporter=append-only",
    ),
    settings={
        "pnpm_config_pm_on_fail": "ignore",  # else it fetches the pnpm that package.json names, without a pinned checksum
        "pnpm_config_verify_deps_before_run": "false",
        "pnpm_config_minimum_release_age": "0",
        "pnpm_config_update_notifier": "false",
    },
    folders={
        "pnpm_config_store_dir": "store",
        "pnpm_config_cache_dir": "cache",
        "pnpm_config_state_dir": "state",
        "XDG_DATA_HOME": "data",
        "XDG_CACHE_HOME": "cache",
        "XDG_STATE_HOME": "state",
        "PNPM_HOME": "home",
        "npm_config_cache": "npm",
    },
    variables={
        "registry": "pnpm_config_registry",
        "https-proxy": "pnpm_config_https_proxy",
        "proxy": "pnpm_config_http_proxy",
        "noproxy": "pnpm_config_no_proxy",
        "cafile": "pnpm_config_cafile",
        "ca": "pnpm_config_ca",
        "strict-ssl": "pnpm_config_strict_ssl",
    },
    prepare=_as_it_is,
    output=_PnpmOutput,
)  # fmt: skip
YARN = Manager(
    name="yarn",
    script="bin/yarn.js",
    lockfile="yarn.lock",
    install=(
        "yarn", "install", "--frozen-lockfile", "--ignore-scripts", "--non-interactive", "--json",
        "--network-timeout", "300000",
    ),
    settings={
        "YARN_IGNORE_PATH": "1",  # else it runs the Yarn that a .yarnrc names
        "YARN_DISABLE_SELF_UPDATE_CHECK": "true",
        "BROWSERSLIST_IGNORE_OLD_DATA": "true",
    },
    folders={"YARN_CACHE_FOLDER": "cache", "npm_config_cache": "npm", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"},
    variables={
        "registry": "npm_config_registry",
        "https-proxy": "npm_config_https_proxy",
        "proxy": "npm_config_proxy",
        "cafile": "npm_config_cafile",
        "strict-ssl": "npm_config_strict_ssl",
    },
    prepare=_one_registry,
    output=_YarnOutput,
)  # fmt: skip
MANAGERS: Mapping[str, Manager] = {manager.name: manager for manager in (PNPM, YARN)}
"""The package managers by name."""
