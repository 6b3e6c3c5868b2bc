"""How long it takes to stop, start, save and restore a lab with bookinfo. `make bench` measures it in each round.

`python -m stackbook.app.life_benchmark [ROUNDS]` measures only this, on a lab with its own name and subnet, and updates the README.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackbook.app import program, readme_figures, reset
from stackbook.app.snapshots import listing, manifest
from stackbook.app.snapshots.store import Store
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError, StackbookError
from stackbook.lab.step import now
from stackbook.machines.providers.podman import Embedded

PROMISED = {"stop": 20.0, "start, to all Ready": 45.0, "snapshot save": 30.0, "snapshot restore, to all Ready": 60.0}
"""Seconds, with two processors."""
SIZE = "snapshot's bytes"
_NAME = "bench"
_LIMIT = 600.0
_PROFILE = {
    "target": "embedded",
    "lab": "sblifebench",
    "nodes": [{"name": "k8s-master", "address": "192.168.88.3"}, {"name": "k8s-node1", "address": "192.168.88.4"}],
    "subnet": "192.168.88.0/24",
    "gateway": "192.168.88.2",
}


def measure(word: str) -> dict[str, float]:
    """Seconds of each command on a running lab, and the size of a snapshot in bytes; afterwards, the lab is as before.

    Args:
        word: the profile's name or path.

    Raises:
        InputError: a snapshot with the name that it uses exists.
        StackbookError: a command failed; with its output.
    """
    profile = Profile.load(word)
    store = Store(profile.lab)
    if _NAME in store.names():
        raise InputError(f"there is already a snapshot {_NAME!r}", fix=f"stackbook snapshot remove {_NAME}")
    commands = (("stop",), ("start",), ("snapshot", "save", _NAME), ("snapshot", "restore", _NAME))
    try:
        found = {name: _seconds(word, *command) for name, command in zip(PROMISED, commands, strict=True)}
        return {**found, SIZE: float(manifest.read(store.path(_NAME)).size)}
    finally:
        if _NAME in store.names():
            listing.remove(profile, _NAME)


def _seconds(word: str, *command: str) -> float:
    begin = time.monotonic()
    argv = [sys.executable, "-m", "stackbook", *command, "--profile", word]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_LIMIT)
    took = time.monotonic() - begin
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise StackbookError(f"stackbook {' '.join(command)} failed with status {done.returncode}:\n{said}")
    return round(took, 2)


def summed(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The medians over all rounds."""
    return {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}


def block(medians: Mapping[str, float], *, rounds: int, time: str, processors: int, system: str) -> str:
    """The README's figures."""
    lines = ["| a lab with bookinfo | measured | promised |", "|---|---|---|"]
    lines += [f"| {name} | {medians[name]:.0f} s | {promised:.0f} s |" for name, promised in PROMISED.items()]
    lines += [
        "",
        f"A snapshot takes {medians[SIZE] / 1e9:.1f} GB (medians of {rounds} {'round' if rounds == 1 else 'rounds'}; "
        f"{processors} processors, {system}; measured {time[:4]}-{time[4:6]}-{time[6:8]}).",
    ]
    return "\n".join(lines)


def publish(rounds: Sequence[Mapping[str, float]]) -> str:
    """Put the figures into the README; returns them."""
    text = block(
        summed(rounds),
        rounds=len(rounds),
        time=now(),
        processors=os.cpu_count() or 1,
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
    )
    readme_figures.put("life", text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Build a lab, measure it, remove it, and put the figures into the README; returns the exit status."""
    words: list[Any] = list(sys.argv[1:] if argv is None else argv)
    rounds = int(words[0]) if words and str(words[0]).isdigit() else 3
    with tempfile.TemporaryDirectory(prefix="stackbook-life-") as folder:
        word = str(Path(folder) / "life.yaml")
        Path(word).write_text(yaml.safe_dump(_PROFILE), encoding="utf-8")
        profile = Profile.load(word)
        if Embedded(profile).containers():
            raise InputError(
                f"the lab {profile.lab!r} exists, but a benchmark starts without a lab", fix="remove it first"
            )
        try:
            print(f"a lab with bookinfo: {_seconds(word, 'run', '--to', '05'):.0f} s", flush=True)
            found = []
            for number in range(rounds):
                found.append(measure(word))
                print(f"round {number + 1} of {rounds}: {found[-1]}", flush=True)
        finally:
            reset.reset(profile, say=lambda text: None)
    print(publish(found))
    return 0


if __name__ == "__main__":
    program.end_with(main)
