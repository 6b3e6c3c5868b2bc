"""Machines are made of the host's own release, images always of the same one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from stackbook.artifacts import machine_releases
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.sources import Debian
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu-24.04"),
        ('ID=debian\nVERSION_ID="13"\n', "debian-13"),
        ("ID=debian\nVERSION_ID='12'\n", "debian-12"),
        ('ID=ubuntu\nVERSION_ID="22.04"\n', "debian-12"),
        ("ID=arch\n", "debian-12"),
        ("", "debian-12"),
    ],
)
def test_the_hosts_own_release(text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "os-release"
    path.write_text(text)
    monkeypatch.setattr(platform, "_os_release_candidates", (str(path),))
    monkeypatch.setattr(platform, "_os_release_cache", None)
    assert machine_releases.chosen("host") == name
    assert machine_releases.chosen("debian-13") == "debian-13", "what a profile says counts"


def test_a_host_without_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_os_release_candidates", (str(tmp_path / "none"),))
    monkeypatch.setattr(platform, "_os_release_cache", None)
    assert machine_releases.chosen("host") == "debian-12"


@pytest.mark.parametrize("name", machine_releases.RELEASES)
def test_images_are_of_the_same_release_whatever_the_machines_are(name: str) -> None:
    catalogue = load(versions={"machines": name})
    (machines,) = catalogue.artifact("machine-rootfs").sources
    assert isinstance(machines, Debian)
    assert machines.suite == machine_releases.RELEASES[name].suite
    assert catalogue.artifact("machine-rootfs").version == machine_releases.RELEASES[name].version
    roots = {source.suite for base in catalogue.bases.values() for source in catalogue.artifact(base.root).sources
             if isinstance(source, Debian)}  # fmt: skip
    assert roots == {"bookworm"}
    assert ("image-rootfs" in catalogue.artifacts) == (name != "debian-12"), "it would be the machines' own once more"
    assert not catalogue.overridden, "machines of another release are no other version of a component that is built"


def test_a_release_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="machine_release"):
        Profile.load("embedded", overrides={"machine_release": "ubuntu-18.04"})
