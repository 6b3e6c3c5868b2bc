"""Listing and removing snapshots."""

from __future__ import annotations

from stackbook.app.snapshots import manifest
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError


def lines(profile: Profile) -> list[str]:
    """A line for each snapshot: its name, time, size and the chapters that had passed; or what is wrong with it."""
    store = Store(profile.lab)
    found = [f"{'name':20} {'made':16} {'size':>8}  chapters", *(_line(store, name, profile) for name in store.names())]
    if store.restoring:
        found.append(
            f"the restore of {store.restoring!r} was interrupted: stackbook snapshot restore {store.restoring}"
        )
    return (
        found
        if store.names()
        else [f"the lab {profile.lab!r} has no snapshots: stackbook snapshot save NAME creates one"]
    )


def _line(store: Store, name: str, profile: Profile) -> str:
    try:
        found = manifest.read(store.path(name))
        found.demand_fitting(profile)
    except InputError as error:
        return f"{name:20} {error.message}"
    passed = sorted(found.proved)
    to = f"{passed[0]} to {passed[-1]}" if len(passed) > 1 else "".join(passed) or "none"
    return f"{name:20} {_when(found.time):16} {found.size / 1e9:5.2f} GB  {to}"


def _when(stamp: str) -> str:
    """A record's time in readable form.

    >>> _when("20261127T201500Z")
    '2026-11-27 20:15'
    """
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]} {stamp[9:11]}:{stamp[11:13]}"


def remove(profile: Profile, name: str) -> str:
    """Remove a snapshot; returns a line about it.

    Raises:
        InputError: there is no such snapshot, or it is being saved or restored.
    """
    store = Store(profile.lab)
    store.path(name)
    with only_run(profile.lab, who=f"stackbook snapshot remove {name}"):
        size = store.remove(name)
        if store.restoring == name:
            store.forget_restoring()
            return (
                f"✓ snapshot {name!r} is removed; the lab is only partly restored from it: stackbook reset removes it"
            )
    return f"✓ snapshot {name!r} is removed: {size / 1e9:.2f} GB are free again"


def kept(profile: Profile) -> list[str]:
    """Say that the snapshots of a removed lab stay, and where; nothing if there are none."""
    store = Store(profile.lab)
    if not (names := store.names()):
        return []
    return [f"its snapshots stay in {store.folder}: {', '.join(names)} (stackbook reset --snapshots removes them)"]


def remove_all(profile: Profile) -> list[str]:
    """Remove all snapshots of a lab; a line for each."""
    store = Store(profile.lab)
    with only_run(profile.lab, who="stackbook reset --snapshots"):
        found = [f"✓ snapshot {name!r} is removed" for name in store.names() if store.remove(name) >= 0]
        store.sweep()
    return found
