"""Source packages of Debian, built and installed as their authors say, in a root file system that is thrown away afterwards.

apt verifies the sources by Debian's signature. What the build installs, its record and its logs are kept.
"""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from stackbook.artifacts import package_registries
from stackbook.artifacts.sources import DebianSource
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import ArtifactUnavailable
from stackbook.core.progress import Report

RECORD = "build.json"
"""The record of a build: source (package and version), tree (the names at the top of the sources), and for each step its command,
seconds, and the name of its log."""

# $1 is the new root. apt knows the binary packages' archives; the sources are in the same. A command's output goes to a log of its
# own; if it fails, the log's end is an error.
_SCRIPT = r"""set -eu
umask 022
root=$1
out=@OUT@
mkdir -p "$out/log" "$root/source"
sources=$(cat "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p')
(umask 077; printf '%s\n' "$sources" > "$root/etc/apt/sources.list.d/stackbook-sources.list") # an address may have a password
run() { # name of the log, command in the folder of the sources
  echo "I: $2"
  began=$(date +%s)
  if ! chroot "$root" sh -c "cd /source/tree 2>/dev/null || cd /source; $2" > "$out/log/$1" 2>&1; then
    tail -n 40 "$out/log/$1"
    echo "E: $2: $(grep -v '^[[:space:]]*$' "$out/log/$1" | tail -n 1)"
    exit 1
  fi
  printf '%s\t%s\t%s\n' "$1" "$(($(date +%s) - began))" "$2" >> "$out/steps"
}
run update "apt-get update"
run sources "apt-get source --only-source -o APT::Sandbox::User=root @PACKAGE@"
rm "$out/steps" "$out/log/update" "$out/log/sources"
mv "$root"/source/@PACKAGE@-*/ "$root/source/tree"
sed -n 's/^Version: //p' "$root"/source/*.dsc > "$out/version"
case "$(cat "$out/version")" in
  @VERSION@-*) ;;
  *) echo "E: the archive has @PACKAGE@ $(cat "$out/version"), and not @VERSION@"; exit 1 ;;
esac
ls "$root/source/tree" > "$out/tree"
@COMMANDS@
mkdir -p "$out$(dirname @PREFIX@)"
cp -a "$root@PREFIX@" "$out@PREFIX@"
"""


def recipe(source: DebianSource) -> list[object]:
    """Everything that determines a build, except the versions of the day of the packages that it needs."""
    return [
        "debian-source-1",
        source.suite,
        source.package,
        source.version,
        source.packages,
        source.commands,
        source.prefix,
        _SCRIPT,
    ]


def build(
    source: DebianSource, *, folder: Path, job: str, report: Report, log: Path, estimate: float, cancel: threading.Event,
    run: Spawn = spawn, background: bool = False,
) -> Path:  # fmt: skip
    """Build a source package; returns a folder below `folder` with what it installed, `build.json` and `log/`.

    Args:
        source: the source package and the commands.
        folder: a temporary folder on the cache's file system.
        job: the name of the work in progress reports.
        report: gets progress: the command that runs.
        log: the file that gets the whole output of mmdebstrap.
        estimate: how many seconds it will probably take.
        cancel: an event that ends the work when it is set.
        run: starts the child process.
        background: whether nobody waits for it; it then has a low priority.

    Raises:
        InputError: mmdebstrap or the release's keyring is not installed.
        ArtifactUnavailable: the sources could not be obtained, or a command failed.
    """
    out = folder / "built"
    out.mkdir()
    gentle = ("nice", "-n", "19", "ionice", "-c", "3") if background and shutil.which("ionice") else ()
    package_registries.mmdebstrap(
        source.suite, ("dpkg-dev", *source.packages), Path("/dev/null"), script=script(source, out), first=gentle, folder=folder,
        job=job, report=report, log=log, estimate=estimate, cancel=cancel, run=run,
    )  # fmt: skip
    try:
        lines = (out / "steps").read_text(encoding="utf-8").splitlines()
        version = (out / "version").read_text(encoding="utf-8").strip()
        tree = (out / "tree").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ArtifactUnavailable(
            f"{job}: the build left no {Path(error.filename).name} (log: {log})", fix="see the log"
        ) from None
    steps = [dict(zip(("log", "seconds", "command"), line.split("\t"), strict=True)) for line in lines]
    record = {
        "source": f"{source.package} {version}",
        "tree": tree,
        "steps": [{**step, "seconds": int(step["seconds"])} for step in steps],
    }
    (out / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for file in ("steps", "version", "tree"):
        (out / file).unlink()
    return out


def script(source: DebianSource, out: Path) -> str:
    """The script that obtains the sources, builds them, and copies what they installed to `out`; $1 is the root."""
    commands = _numbered(source.commands)
    words = {
        "@OUT@": shlex.quote(str(out)), "@PACKAGE@": source.package, "@VERSION@": source.version, "@PREFIX@": source.prefix,
        "@COMMANDS@": "\n".join(f"run {shlex.quote(name)} {shlex.quote(command)}" for name, command in commands),
    }  # fmt: skip
    text = _SCRIPT
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _numbered(commands: Sequence[str]) -> list[tuple[str, str]]:
    """(name of the log, command) of each command: its place and its program."""
    return [(f"{number}-{command.split()[0]}", command) for number, command in enumerate(commands, 1)]
