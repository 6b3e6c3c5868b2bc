"""What a snapshot says of itself: of which lab it is, what its parts are, and their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbook import __version__
from stackbook.config.profile import Profile
from stackbook.core import private
from stackbook.core.errors import InputError

FORMAT = 1
FILE = "manifest.json"
STATE = "state"
"""The part with what this host knows of the lab."""
_SAME = ("target", "lab", "nodes", "subnet", "gateway", "pod_cidr", "service_cidr", "kubernetes_version")
"""What of a profile a lab cannot change once it is built."""


@dataclass(frozen=True)
class Part:
    """One file of a snapshot.

    Args:
        machine: whose disk it is; empty for the lab's state.
        what: which disk.
        file: its name.
        size: its bytes.
        sha256: its checksum.
        content: the bytes of what is in it.
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
        name: of the snapshot: its folder's, whatever it was called when it was saved.
        time: when it was made.
        lab: whose it is, and what of its profile cannot change.
        image: the machine image's name in podman.
        instance: which lab of that name.
        proved: the chapters that had passed, with the keys of their proofs.
        parts: its files.
        stackbook: the version that made it.
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
        """The bytes that it takes."""
        return sum(part.size for part in self.parts)

    @property
    def content(self) -> int:
        """The bytes that it takes once it is restored."""
        return sum(part.content for part in self.parts)

    def write(self, folder: Path) -> None:
        """Keep it in a snapshot's folder."""
        data = {"format": FORMAT, **asdict(self)}
        private.write(folder / FILE, json.dumps({**data, "sha256": _digest(data)}, indent=1) + "\n")

    def demand_fitting(self, profile: Profile) -> None:
        """Refuse it for a lab that is another one.

        Raises:
            InputError: says what differs.
        """
        wanted = of_profile(profile)
        for name in _SAME:
            if self.lab.get(name) != wanted[name]:
                raise InputError(
                    f"the snapshot {self.name!r} was made with another {name}: {_short(self.lab.get(name))}, and the profile "
                    f"has {_short(wanted[name])}",
                    fix="choose the profile that it was made with",
                )


def of_profile(profile: Profile) -> dict[str, Any]:
    """What of a profile a lab cannot change once it is built."""
    data = profile.model_dump(mode="json")
    return {name: data[name] for name in _SAME}


def read(folder: Path) -> Manifest:
    """The manifest of a snapshot.

    Raises:
        InputError: it is of another version, or damaged.
    """
    name = folder.name
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        version = data["format"]
        if version != FORMAT:
            raise InputError(
                f"the snapshot {name!r} has format {version}, and this stackbook {__version__} reads format {FORMAT}",
                fix=f"use the stackbook that made it ({data.get('stackbook', 'it does not say which')}), or remove it",
            )
        if data.pop("sha256") != _digest(data):
            raise ValueError("its checksum is another one")
        del data["format"]
        return Manifest(**{**data, "name": name, "parts": tuple(Part(**part) for part in data["parts"])})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise damaged(name, f"its {FILE} cannot be read ({why})") from None


def damaged(name: str, how: str) -> InputError:
    """The error of a snapshot that cannot be used."""
    return InputError(f"the snapshot {name!r} is damaged: {how}", fix=f"stackbook snapshot remove {name}")


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{node.get('name')} {node.get('address')}" for node in value)
    return str(value)
