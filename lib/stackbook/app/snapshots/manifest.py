"""The manifest of a snapshot: its lab, its parts, and their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbook.config.profile import Profile
from stackbook.core import private
from stackbook.core.errors import InputError
from stackbook.core.version import __version__

FORMAT = 1
FILE = "manifest.json"
STATE = "state"
"""The part with the lab's state on this host."""
_SAME = ("target", "lab", "nodes", "subnet", "gateway", "pod_cidr", "service_cidr", "kubernetes_version")
"""The fields of a profile that a lab cannot change after it is built."""


@dataclass(frozen=True)
class Part:
    """One file of a snapshot.

    Args:
        machine: the machine whose disk it is; empty for the lab's state.
        what: the disk.
        file: its name.
        size: its size in bytes.
        sha256: its checksum.
        content: the size of its content in bytes.
    """

    machine: str
    what: str
    file: str
    size: int
    sha256: str
    content: int


@dataclass(frozen=True)
class Manifest:
    """One snapshot.

    Args:
        name: the snapshot's name: that of its folder, even if it was renamed.
        time: when it was saved.
        lab: the lab's name, and the fields of its profile that cannot change.
        image: the name of the machine image in podman.
        instance: identifies the lab among earlier ones with the same name.
        proved: the chapters that had passed, with the keys of their proofs.
        parts: its files.
        stackbook: the version that saved it.
    """

    name: str
    time: str
    lab: Mapping[str, Any]
    image: str
    instance: str
    proved: Mapping[str, str]
    parts: tuple[Part, ...]
    stackbook: str = field(default=__version__)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return sum(part.size for part in self.parts)

    @property
    def content(self) -> int:
        """Its size in bytes after it is restored."""
        return sum(part.content for part in self.parts)

    def write(self, folder: Path) -> None:
        """Write it into a snapshot's folder."""
        data = {"format": FORMAT, **asdict(self)}
        private.write(folder / FILE, json.dumps({**data, "sha256": _digest(data)}, indent=1) + "\n")

    def demand_fitting(self, profile: Profile) -> None:
        """Refuse it for a different lab.

        Raises:
            InputError: it was saved from a different lab; the error says what differs.
        """
        wanted = of_profile(profile)
        for name in _SAME:
            if self.lab.get(name) != wanted[name]:
                raise InputError(
                    f"the snapshot {self.name!r} was saved with another {name}: {_short(self.lab.get(name))}, but the profile "
                    f"has {_short(wanted[name])}",
                    fix="use the profile with which it was saved",
                )


def of_profile(profile: Profile) -> dict[str, Any]:
    """The fields of a profile that a lab cannot change after it is built."""
    data = profile.model_dump(mode="json")
    return {name: data[name] for name in _SAME}


def read(folder: Path) -> Manifest:
    """The manifest of a snapshot.

    Raises:
        InputError: it has another version, or is damaged.
    """
    name = folder.name
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        version = data["format"]
        if version != FORMAT:
            raise InputError(
                f"the snapshot {name!r} has format {version}, but this stackbook {__version__} reads format {FORMAT}",
                fix=f"use the stackbook that saved it ({data.get('stackbook', 'unknown version')}), or remove it",
            )
        if data.pop("sha256") != _digest(data):
            raise ValueError("its checksum is wrong")
        del data["format"]
        return Manifest(**{**data, "name": name, "parts": tuple(Part(**part) for part in data["parts"])})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise damaged(name, f"its {FILE} cannot be read ({why})") from None


def damaged(name: str, how: str) -> InputError:
    """The error for a damaged snapshot."""
    return InputError(f"the snapshot {name!r} is damaged: {how}", fix=f"stackbook snapshot remove {name}")


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{node.get('name')} {node.get('address')}" for node in value)
    return str(value)
