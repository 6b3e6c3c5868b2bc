"""Packages of the npm registry, with npm and the user's own settings: registry, proxy, certificates."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

from stackbook.artifacts.sources import Npm
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import ArtifactUnavailable, CorruptArtifact
from stackbook.core.progress import Progress, Report
from stackbook.core.redact import redact

REGISTRY = "https://registry.npmjs.org/"
"""The registry that npm asks by default."""
_NETWORK = ("registry", "https-proxy", "proxy", "noproxy", "cafile", "ca", "strict-ssl")


def npm(node: Path) -> list[str]:
    """The command line of npm; `bin/npm` of the wheel was a link, is a file now, and does not find its modules."""
    return [str(node / "bin" / "node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]


def package(
    source: Npm, *, version: str, node: Path, folder: Path, npm_cache: Path, job: str, report: Report, log: Path,
    cancel: threading.Event, run: Spawn = spawn,
) -> Path:  # fmt: skip
    """Download a package into `folder`, compare it with its pinned checksum, and unpack it; returns the unpacked folder.

    Raises:
        ArtifactUnavailable: npm could not get it.
        CorruptArtifact: it does not match the pinned checksum.
    """
    if not source.integrity:
        raise ArtifactUnavailable(f"{source.package} {version}: no checksum is pinned", fix="pin it in catalogue.yaml")
    argv = [*npm(node), "pack", f"{source.package}@{version}", "--ignore-scripts", "--cache", str(npm_cache)]
    argv += ["--pack-destination", str(folder), "--loglevel", "error"]
    said: list[str] = []

    def tick(seconds: float) -> None:
        report(Progress(job, "download", seconds=seconds))

    status = run(argv, env=os.environ, cwd=folder, log=log, on_line=said.append, on_tick=tick, cancel=cancel)
    shutil.rmtree(npm_cache, ignore_errors=True)  # the cache of the lab has the package, so it need not be here as well
    archive = next(iter(folder.glob("*.tgz")), None)
    if status != 0 or archive is None:
        lines = [line for line in said if "npm error" in line] or said
        raise ArtifactUnavailable(
            redact(f"{source.package} {version} from npm: {' / '.join(lines[:3])} (log: {log})"),
            fix="check npm's registry (npm config get registry) and the network",
        )
    actual = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if actual != source.integrity:
        raise CorruptArtifact(f"{archive.name} from npm: its checksum is {actual}, it should be {source.integrity}")
    report(Progress(job, "assemble", message="unpacking"))
    with tarfile.open(archive) as packed:  # its checksum is pinned, so its paths can be trusted
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.10 and 3.11 have it from a patch on
        packed.extractall(folder / "unpacked")
    archive.unlink()
    return folder / "unpacked" / "package"


def network_settings(node: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The user's settings of npm for the network, by npm's names; package managers read passwords and tokens in ~/.npmrc themselves."""
    argv = [*npm(node), "config", "list", "--json", "--logs-max=0"]  # no log in the user's home folder
    answer = subprocess.run(argv, env=dict(env), capture_output=True, text=True, timeout=60, check=False)
    try:
        settings = json.loads(answer.stdout)
    except ValueError:
        settings = {}
    return {name: _text(settings[name]) for name in _NETWORK if settings.get(name) not in (None, "", [])}


def _text(value: object) -> str:
    """A setting as the value of a variable.

    >>> _text(True), _text(["a", "b"]), _text("https://registry.npmjs.org/")
    ('true', '["a", "b"]', 'https://registry.npmjs.org/')
    """
    return value if isinstance(value, str) else json.dumps(value)
