"""Builds of Debian's source packages: what the script does in a root, what is recorded, and what a failure says."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stackbook.artifacts import machine_releases, package_registries, source_builds
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.machine_releases import of_suite
from stackbook.artifacts.sources import DebianSource
from stackbook.core.errors import ArtifactUnavailable

SOURCE = DebianSource(
    "bookworm", "trial", "1.2", ("g++",),
    ("mkdir made", "echo 100% tests passed", "sh -c 'mkdir -p \"$PREFIX/bin\"; echo it > \"$PREFIX/bin/tool\"'"), "/opt/trial",
)  # fmt: skip
# It runs a command in a root without being root: paths of the command that begin with / are put below it.
CHROOT = r"""#!/bin/sh
root=$1
shift 3
command=$(printf '%s' "$1" | sed "s#cd /source#cd $root/source#g")
PREFIX="$root/opt/trial" exec sh -c "$command"
"""
APT_GET = r"""#!/bin/sh
case "$1" in
  update) grep -h deb-src "$ROOT"/etc/apt/sources.list.d/* > "$ROOT/updated" ;;
  source) mkdir trial-1.2; touch trial-1.2/README; echo "Version: 1.2-3" > trial_1.2-3.dsc; echo "$*" > "$ROOT/asked" ;;
esac
"""


class Mmdebstrap:
    """In the place of mmdebstrap: makes an empty root with a line of sources.list, and runs the script in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.argv = folder, [""]
        (folder / "bin").mkdir()
        for name, text in (("chroot", CHROOT), ("apt-get", APT_GET)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def __call__(self, argv: list[str], *, env: dict[str, str], on_line: Any, **_: Any) -> int:
        self.argv = argv
        root = self.folder / "root"
        (root / "etc/apt/sources.list.d").mkdir(parents=True)
        (root / "etc/apt/sources.list.d/0000.list").write_text("deb http://mirror.invalid/debian bookworm main\n")
        (hook,) = [w.removeprefix("--customize-hook=") for w in argv if w.startswith("--customize-hook=")]
        environment = {**env, "PATH": f"{self.folder / 'bin'}:{os.defpath}", "ROOT": str(root)}
        done = subprocess.run(
            ["sh", "-c", hook, "exec", str(root)], env=environment, capture_output=True, text=True, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            on_line(line)
        return done.returncode


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mmdebstrap:
    """A host with mmdebstrap, whose apt does not use the suite."""
    monkeypatch.setattr(machine_releases, "of_suite", lambda suite: replace(of_suite(suite), keyring=tmp_path))
    monkeypatch.setattr(package_registries.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(package_registries, "_ask", lambda _argv: "")
    return Mmdebstrap(tmp_path)


def made(source: DebianSource, host: Mmdebstrap, **options: Any) -> tuple[Path, list[str]]:
    folder = host.folder / "work"
    folder.mkdir()
    said: list[str] = []
    out = source_builds.build(
        source, folder=folder, job="x", report=lambda progress: said.append(progress.message), log=host.folder / "log",
        estimate=1.0, cancel=threading.Event(), run=host, **options,
    )  # fmt: skip
    return out, said


def test_what_a_build_installs_its_steps_and_its_logs_are_kept(host: Mmdebstrap) -> None:
    out, said = made(SOURCE, host)
    assert (out / "opt/trial/bin/tool").read_text() == "it\n"
    record = json.loads((out / "build.json").read_text())
    assert (record["source"], record["tree"]) == ("trial 1.2-3", ["README"])
    assert [step["command"] for step in record["steps"]] == list(SOURCE.commands)
    assert all(isinstance(step["seconds"], int) for step in record["steps"])
    assert (out / "log" / record["steps"][1]["log"]).read_text() == "100% tests passed\n"
    assert sorted(path.name for path in out.iterdir()) == ["build.json", "log", "opt"]
    assert len(list((out / "log").iterdir())) == 3, "apt's own output may have the address of a mirror"
    assert [text for text in said if text in SOURCE.commands] == list(SOURCE.commands), "progress names the command"
    root = host.folder / "root"
    assert (root / "updated").read_text() == "deb-src http://mirror.invalid/debian bookworm main\n"
    assert "trial" in (root / "asked").read_text()
    assert "--include=dpkg-dev,g++" in host.argv and host.argv[-1] == "/dev/null"


def test_a_command_that_fails_is_named_with_what_it_said_last(host: Mmdebstrap) -> None:
    source = replace(SOURCE, commands=("echo fine", "sh -c 'echo no such header; exit 3'", "echo never"))
    with pytest.raises(ArtifactUnavailable) as raised:
        made(source, host)
    assert "no such header" in raised.value.message and "exit 3" in raised.value.message
    assert not (host.folder / "work/built/build.json").exists()


def test_sources_of_another_version_are_refused(host: Mmdebstrap) -> None:
    with pytest.raises(ArtifactUnavailable, match=r"the archive has trial 1\.2-3, and not 1\.3"):
        made(replace(SOURCE, version="1.3"), host)


def test_in_the_background_it_is_gentle(host: Mmdebstrap) -> None:
    made(SOURCE, host, background=True)
    assert host.argv[:3] == ["nice", "-n", "19"]


def test_a_build_that_left_nothing_is_no_build(host: Mmdebstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_registries, "mmdebstrap", lambda *_args, **_options: [])
    with pytest.raises(ArtifactUnavailable, match="the build left no steps"):
        made(SOURCE, host)


def test_the_key_changes_with_everything_that_determines_it() -> None:
    (source,) = load().artifact("protobuf-source").sources
    assert isinstance(source, DebianSource)
    others = [replace(source, version="3"), replace(source, commands=("make",)), replace(source, packages=("gcc",))]
    assert len({repr(source_builds.recipe(one)) for one in (source, *others)}) == 4
