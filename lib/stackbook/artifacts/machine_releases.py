"""The releases of Debian and Ubuntu from which machines can be made, and the one of this host."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

HOST = "host"
IMAGES = "debian-12"
"""The release of the packages in the images that the lab builds; it does not depend on the machines' release."""


@dataclass(frozen=True)
class MachineRelease:
    """One release.

    Attributes:
        version: its number.
        suite: its code name.
        label: the label of its archive, as `apt-get indextargets` prints it.
        security: the label of the archive of its security updates.
        components: the components of the archive, separated by spaces.
        keyring: the file with the archive's keys.
        keyring_package: the package that contains the keyring.
    """

    version: str
    suite: str
    label: str
    security: str
    components: str
    keyring: Path
    keyring_package: str


_KEYRINGS = Path("/usr/share/keyrings")


def _debian(version: str, suite: str) -> MachineRelease:
    keyring = _KEYRINGS / "debian-archive-keyring.gpg"
    return MachineRelease(version, suite, "Debian", "Debian-Security", "main", keyring, "debian-archive-keyring")


def _ubuntu(version: str, suite: str) -> MachineRelease:
    keyring = _KEYRINGS / "ubuntu-archive-keyring.gpg"
    return MachineRelease(version, suite, "Ubuntu", "Ubuntu", "main universe", keyring, "ubuntu-keyring")


RELEASES: Mapping[str, MachineRelease] = MappingProxyType(
    {
        "debian-12": _debian("12", "bookworm"),
        "debian-13": _debian("13", "trixie"),
        "ubuntu-24.04": _ubuntu("24.04", "noble"),
    }
)


def of_suite(suite: str) -> MachineRelease:
    """The release with this code name.

    >>> of_suite("noble").label
    'Ubuntu'
    """
    return next(release for release in RELEASES.values() if release.suite == suite)


def chosen(name: str) -> str:
    """The name of a release; `host` becomes this host's release, or `debian-12` if this host has another one."""
    if name != HOST:
        return name
    try:
        host = platform.freedesktop_os_release()
    except OSError:
        return IMAGES
    own = f"{host['ID']}-{host.get('VERSION_ID', '')}"
    return own if own in RELEASES else IMAGES


def numbered(version: str) -> str:
    """The name of the release with this number; empty if there is none.

    >>> numbered("24.04"), numbered("11")
    ('ubuntu-24.04', '')
    """
    return next((name for name, release in RELEASES.items() if release.version == version), "")
