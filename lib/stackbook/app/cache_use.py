"""Who uses the cache: all labs of this user share it, so a reset must not remove it while another lab uses it."""

from __future__ import annotations

import json

from stackbook.artifacts import cache_folder
from stackbook.core import paths
from stackbook.core.errors import InputError, TransportError
from stackbook.machines.providers.belongings import LABEL, is_of, labels_of
from stackbook.machines.transports import Host, LocalHost


def demand_removable(lab: str, host: Host | None = None) -> None:
    """Refuse to remove the cache if it is not stackbook's, or if another lab or run uses it. Changes nothing.

    Raises:
        InputError: the cache is not stackbook's, or something uses it; the error says what.
    """
    cache_folder.demand(paths.cache())
    if others := _containers_of_others(lab, host or LocalHost()):
        raise InputError(f"the lab {others[0]!r} uses the cache", fix="reset that lab first, or leave out --cache")
    for lock in sorted(paths.states().glob("*.lock")):
        if lock.stem != lab and cache_folder.held(lock):
            raise InputError(f"a run of the lab {lock.stem!r} uses the cache", fix="wait for it, or leave out --cache")
    if job := cache_folder.busy(paths.cache()):
        raise InputError(f"{job} is being added to the cache", fix="wait for it, or leave out --cache")


def remove() -> list[str]:
    """Remove the cache; returns lines that say what was done."""
    folder = paths.cache()
    left = cache_folder.remove(folder)
    if left:
        return [f"✓ stackbook's files in the cache {folder} are removed; still there: {',  '.join(left)}"]
    return [f"✓ the cache {folder} is removed"]


def _containers_of_others(lab: str, host: Host) -> list[str]:
    """The other labs that have containers."""
    argv = ["podman", "ps", "-a", "--filter", f"label={LABEL}", "--format", "json"]
    try:
        answer = host.run(argv, check=False, timeout=60)
    except TransportError:  # without podman there are no machines
        return []
    if not answer.ok:
        said = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"podman could not tell whether another lab uses the cache: {said}", fix="leave out --cache")
    entries = json.loads(answer.stdout or "[]") or []
    others = [entry for entry in entries if not is_of(entry, lab, str(paths.states() / lab))]
    return sorted({str(labels_of(entry).get(LABEL, "")) for entry in others})
