"""Restoring a snapshot: first, all checksums are verified, then the lab's machines are recreated from it."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stackbook.app import life, preflight, reset
from stackbook.app.snapshots import archive, manifest
from stackbook.app.snapshots.manifest import STATE, Manifest
from stackbook.app.snapshots.save import is_the_labs
from stackbook.app.snapshots.store import Store, demand_space, sorted_by_size, verify
from stackbook.app.supervision import only_run
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.machines.providers import disks
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded

UNPACK_SECONDS = 900.0


def restore(profile: Profile, name: str, *, say: Say = print) -> None:
    """Restore the lab to its state when the snapshot was saved, and wait until it is Ready.

    The lab's current state is lost. An interrupted restore leaves a note: until the restore is repeated or the lab is reset, no
    other command uses the incomplete lab.

    Args:
        profile: the lab's profile.
        name: the snapshot's name.
        say: takes one line of progress.

    Raises:
        InputError: there is no such snapshot, it is damaged or from another lab or version, or a run uses the lab; nothing
                was changed.
        HostUnfit: there is too little space, or the machine image no longer exists; nothing was changed.
        WaitTimeout: the lab is restored, but something in it is not Ready.
    """
    if profile.target != "embedded":
        life.demand_embedded(profile, "a snapshot")
    store = Store(profile.lab)
    store.path(name)
    with only_run(profile.lab, who=f"stackbook snapshot restore {name}"):
        restore_locked(profile, name, say=say)


def restore_locked(profile: Profile, name: str, *, say: Say) -> None:
    """Do the work of `restore`; the caller holds the run's lock."""
    start = time.monotonic()
    store, provider = Store(profile.lab), Embedded(profile)
    archive.demand_tools()
    folder = store.path(name)
    found = manifest.read(folder)
    found.demand_fitting(profile)
    verify(folder, found)
    preflight.demand(profile)
    provider.demand_names()
    _demand_image(provider, found, say)
    _demand_room(provider, found)
    say(f"the checksums of the {len(found.parts)} files of {name!r} are right")
    reset.remember(profile)

    store.note_restoring(name)
    say("recreating the machines")
    provider.remove(say=lambda text: None)
    provider.create(found.image, say=say)
    _fill(provider, folder, found)
    _put_state(profile, folder, found)
    store.forget_restoring()

    say(f"restored in {time.monotonic() - start:.0f} s; starting")
    life.wake(profile, say=say)
    say(f"✓ snapshot {name!r} is restored ({time.monotonic() - start:.0f} s)")


def _demand_image(provider: Embedded, found: Manifest, say: Say) -> None:
    """Make sure that podman has the machines' image: import it from the cache if necessary."""
    if provider.has_image(found.image):
        return
    if (made := provider.ensure_image(say)) != found.image:
        raise InputError(
            f"the snapshot {found.name!r} needs the machine image {found.image}, which no longer exists "
            f"(this stackbook builds {made})",
            fix=f"stackbook snapshot remove {found.name}",
        )


def _demand_room(provider: Embedded, found: Manifest) -> None:
    there = provider.containers()
    whole = all(provider.container(node.name) in there for node in provider.profile.nodes)
    freed = disks.used(provider, disks.disks(provider)) if whole else 0
    demand_space(provider.storage(), max(0, found.content - freed), f"the snapshot {found.name!r}")


def _fill(provider: Embedded, folder: Path, found: Manifest) -> None:
    """Restore every disk, two at a time."""
    places = {(disk.machine, disk.what): disk.folder for disk in disks.disks(provider)}
    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [
            pool.submit(archive.unpack, folder / part.file, places[part.machine, part.what], timeout=UNPACK_SECONDS)
            for part in sorted_by_size(found.parts)
            if part.machine
        ]
        for job in jobs:
            job.result()


def _put_state(profile: Profile, folder: Path, found: Manifest) -> None:
    """Restore the lab's state on this host; what is known about the host itself stays."""
    state = paths.state(profile.lab)
    for path in state.iterdir():
        if is_the_labs(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    part = next(part for part in found.parts if part.what == STATE)
    archive.unpack(folder / part.file, state, timeout=UNPACK_SECONDS)
