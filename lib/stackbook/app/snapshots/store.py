"""A lab's snapshots: a folder beside its state, only for its owner, because it contains the lab's keys. A reset leaves it alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stackbook.app.snapshots import manifest
from stackbook.app.snapshots.manifest import Manifest, Part
from stackbook.artifacts.digests import sha256_of
from stackbook.core import ownership, paths, private
from stackbook.core.errors import HostUnfit, InputError
from stackbook.core.names import did_you_mean

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?")
_HALF = ".new-"
_RESTORING = ".restoring"


@dataclass(frozen=True)
class Store:
    """The snapshots of one lab."""

    lab: str

    @property
    def folder(self) -> Path:
        """Their folder, whether there are any or not."""
        return paths.snapshots(self.lab)

    def names(self) -> list[str]:
        """The names of all snapshots, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def path(self, name: str) -> Path:
        """The folder of an existing snapshot.

        Raises:
            InputError: it does not exist; the error suggests the most similar name.
        """
        if name not in self.names():
            raise InputError(
                f"the lab {self.lab!r} has no snapshot {name!r}", fix=did_you_mean(name, self.names(), "snapshots")
            )
        return self.folder / name

    def demand_new(self, name: str) -> None:
        """Refuse a name that cannot be given to a new snapshot.

        Raises:
            InputError: it is not a valid name, or a snapshot has it already.
        """
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is not a valid name for a snapshot", fix="use up to 40 of a-z, 0-9, dot, - and _"
            )
        if name in self.names():
            raise InputError(
                f"there is a snapshot {name!r} already",
                fix=f"choose another name, or remove it first: stackbook snapshot remove {name}",
            )

    def begin(self, name: str) -> Path:
        """Create an empty folder for a new snapshot, under a name that is not a snapshot's; `finish` renames it."""
        self.sweep()
        ownership.make(paths.states(), mode=0o700)
        private.folder(self.folder)
        folder = self.folder / f"{_HALF}{name}"
        folder.mkdir(mode=0o700)
        return folder

    def finish(self, name: str) -> Path:
        """Turn the started snapshot into a complete one."""
        return (self.folder / f"{_HALF}{name}").rename(self.folder / name)

    def sweep(self) -> None:
        """Remove what an interrupted save left behind."""
        for half in self.folder.glob(f"{_HALF}*"):
            shutil.rmtree(half, ignore_errors=True)
        self._tidy()

    def remove(self, name: str) -> int:
        """Remove a snapshot; returns its size in bytes."""
        folder = self.path(name)
        size = sum(file.stat().st_size for file in folder.iterdir())
        half = self.folder / f"{_HALF}{name}"
        shutil.rmtree(half, ignore_errors=True)
        shutil.rmtree(folder.rename(half))  # from here on, it no longer counts as a complete snapshot
        self._tidy()
        return size

    def _tidy(self) -> None:
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    # an interrupted restore

    @property
    def restoring(self) -> str:
        """The snapshot whose restore has started but not finished; empty if there is none."""
        try:
            return (self.folder / _RESTORING).read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def note_restoring(self, name: str) -> None:
        """Note that a restore starts."""
        private.write(self.folder / _RESTORING, f"{name}\n")

    def forget_restoring(self) -> None:
        """Note that the restore has finished, or that the lab is removed."""
        (self.folder / _RESTORING).unlink(missing_ok=True)
        self._tidy()

    def demand_whole(self) -> None:
        """Refuse to use a lab that an interrupted restore left incomplete.

        Raises:
            InputError: a restore was interrupted; the error says how to continue.
        """
        if name := self.restoring:
            raise InputError(
                f"the restore of the snapshot {name!r} was interrupted, so the lab is incomplete",
                fix=f"stackbook snapshot restore {name}, or stackbook reset",
            )


def verify(folder: Path, found: Manifest) -> None:
    """Verify the checksum of every part of a snapshot.

    Raises:
        InputError: a part is missing, truncated or changed.
    """
    for part in found.parts:
        file = folder / part.file
        size = file.stat().st_size if file.is_file() else -1
        if size != part.size:
            how = "is missing" if size < 0 else f"has {size} bytes of {part.size}"
            raise manifest.damaged(found.name, f"{part.file} {how}")
    with ThreadPoolExecutor(2) as pool:
        sums = pool.map(lambda part: sha256_of(folder / part.file), found.parts)
        for part, got in zip(found.parts, sums, strict=True):
            if got != part.sha256:
                raise manifest.damaged(
                    found.name, f"{part.file} has changed since it was saved (its checksum is wrong)"
                )


def demand_space(folder: Path, needed: int, what: str) -> None:
    """Refuse if a disk has too little space.

    Raises:
        HostUnfit: there is too little; the error says how much is needed.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise HostUnfit(
            f"{what} needs {needed / 1e9:.1f} GB at {folder}, but only {free / 1e9:.1f} GB are free",
            fix="free space there, for example: stackbook snapshot remove NAME",
        )


def sorted_by_size(parts: Iterable[Part]) -> list[Part]:
    """Sort by size, largest first: several workers finish sooner that way."""
    return sorted(parts, key=lambda part: -part.size)
