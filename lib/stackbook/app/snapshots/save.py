"""Saving a snapshot: the machines are paused while their disks are copied."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stackbook.app import life
from stackbook.app.snapshots import archive, manifest
from stackbook.app.snapshots.manifest import STATE, Manifest, Part
from stackbook.app.snapshots.store import Store, demand_space
from stackbook.app.supervision import only_run
from stackbook.config import chapters
from stackbook.config.profile import ChapterParameters, Profile
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.lab.lab import Lab
from stackbook.lab.step import now
from stackbook.machines.providers import disks, power
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded

PACK_SECONDS = 600.0
ROOM = 1.4
"""How much space a save needs at most for each byte on the lab's disks: a copy, and zstd's output (measured: 0.35)."""
_OF_ONE_PROCESS = ("interactive", "turn.next", "testbed.users")
_OF_THE_HOST = ("before.json",)


def save(profile: Profile, name: str, *, say: Say = print) -> Manifest:
    """Save the lab as it is now: its machines' disks, including etcd's, all of the same moment, and its state on this host.

    Running machines are paused meanwhile. Afterwards they continue, and the save waits until the cluster is Ready.

    Args:
        profile: the lab's profile.
        name: the snapshot's name.
        say: takes one line of progress.

    Raises:
        InputError: the name cannot be used, there is no such lab, or a run uses it; nothing was changed.
        HostUnfit: there is too little space; nothing was changed.
    """
    start = time.monotonic()
    store = Store(profile.lab)
    store.demand_new(name)
    archive.demand_tools()
    store.demand_whole()
    life.demand_embedded(profile, "a snapshot")
    with only_run(profile.lab, who=f"stackbook snapshot save {name}"):
        store.demand_new(name)
        store.demand_whole()
        provider = life.demand_embedded(profile, "a snapshot")
        found = disks.disks(provider)
        demand_space(store.folder, int(ROOM * disks.used(provider, found)), "the snapshot")
        folder = store.begin(name)
        began = time.time()
        try:
            with power.paused(provider) as stood:
                still = f"{len(stood)} machines are paused while their disks are copied"
                say(still if stood else "the lab is stopped: its disks are copied as they are")
                copies = _copied(folder, found, paths.state(profile.lab))
            say(f"copied in {time.time() - began:.0f} s{', the machines continue' if stood else ''}; compressing")
            saved = _compressed(profile, provider, copies, folder, name)
            saved.write(folder)
            store.finish(name)
        finally:
            store.sweep()
        if stood:
            _go_on(profile, say)
    took = time.monotonic() - start
    say(f"✓ snapshot {name!r}: {saved.size / 1e9:.2f} GB in {store.folder / name} ({took:.0f} s)")
    return saved


@dataclass(frozen=True)
class _Copy:
    """The copy of one disk or of the state: an archive, and its size."""

    machine: str
    what: str
    file: Path
    size: int


def _copied(folder: Path, found: Sequence[disks.Disk], state: Path) -> list[_Copy]:
    """Copy everything, two disks at a time. Compression comes later, because the machines are paused meanwhile."""

    def copy(machine: str, what: str, source: Path, names: Sequence[str]) -> _Copy:
        file = folder / (f"{machine}-{what}.tar" if machine else f"{what}.tar")
        return _Copy(machine, what, file, archive.collect(source, file, names=names, timeout=PACK_SECONDS))

    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(copy, disk.machine, disk.what, disk.folder, (".",)) for disk in _largest_first(found)]
        jobs.append(pool.submit(copy, "", STATE, state, kept_state(state)))
        return [job.result() for job in jobs]


def _compressed(
    profile: Profile, provider: Embedded, copies: Sequence[_Copy], folder: Path, name: str
) -> Manifest:  # fmt: skip
    """Compress these copies, two at a time; returns their manifest entries."""

    def part(copy: _Copy) -> Part:
        target = copy.file.with_suffix(".tar.zst")
        packed = archive.compress(copy.file, target, timeout=PACK_SECONDS)
        return Part(copy.machine, copy.what, target.name, packed.size, packed.sha256, copy.size)

    with ThreadPoolExecutor(max_workers=2) as pool:
        parts = tuple(pool.map(part, copies))
    return Manifest(
        name=name,
        time=now(),
        lab=manifest.of_profile(profile),
        image=disks.image(provider),
        instance=Lab(chapters.ALL[0], profile, ChapterParameters()).instance(),
        proved=_proved(paths.state(profile.lab)),
        parts=parts,
    )


def kept_state(state: Path) -> list[str]:
    """The files of a lab's state that belong to the lab: not those of processes, nor those about this host."""
    return sorted(path.name for path in state.iterdir() if is_the_labs(path.name))


def is_the_labs(name: str) -> bool:
    """Whether a file of a lab's state belongs to the lab.

    >>> [is_the_labs(name) for name in ("kubeconfig", "proved.json", "before.json", "turn.lock", "interactive")]
    [True, True, False, False, False]
    """
    return name not in (*_OF_ONE_PROCESS, *_OF_THE_HOST) and not name.endswith(".lock")


def _largest_first(found: Sequence[disks.Disk]) -> list[disks.Disk]:
    """Order the disks by size: images take most of the space, and starting with the largest ends sooner."""
    return sorted(found, key=lambda disk: ("containerd", disks.ROOT, "kubelet").index(disk.what))


def _proved(state: Path) -> dict[str, str]:
    try:
        return dict(json.loads((state / "proved.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _go_on(profile: Profile, say: Callable[[str], None]) -> None:
    """Wait until the cluster is Ready again; if it is not, the snapshot is good nevertheless."""
    lab = Lab(chapters.ALL[0], profile, ChapterParameters())
    if not lab.kubeconfig.exists():
        return
    try:
        life.ready_again(lab, [], time.time())
    except StackbookError as error:
        say(f"– the snapshot is saved, but the lab is not Ready yet: {error}")
