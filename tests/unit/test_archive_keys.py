"""The keys of archives: a base with a key of its own changes only the archives that use it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.artifacts.builder import Maker
from stackbook.artifacts.catalogue import Base, Catalogue
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.debian_layers import DebianRoot
from stackbook.artifacts.named_packages import NamedRoot
from stackbook.artifacts.store import Store


def keys(catalogue: Catalogue, folder: Path) -> dict[str, str]:
    """The key of each bundle's archive; every part has a digest by its name."""
    maker = Maker(catalogue, Store(folder / "cache"))

    def parts(names: Iterable[str]) -> Any:
        return {name: SimpleNamespace(digest=name) for name in names}

    found = {}
    for name in catalogue.bundles:
        members = catalogue.members("bundle", name)
        files = parts(file for image in members for file, _ in image.files)
        found[name] = maker.archive_key(members, files, parts(catalogue.roots(members)))
    return found


def changed(base: Base, folder: Path, *, name: str = "new") -> set[str]:
    """The bundles whose key changes when the catalogue has this base, too."""
    catalogue = load()
    before = keys(catalogue, folder)
    after = keys(replace(catalogue, bases={**catalogue.bases, name: base}), folder)
    return {bundle for bundle in before if before[bundle] != after[bundle]}


def test_a_new_base_with_a_key_of_its_own_changes_no_archive(tmp_path: Path) -> None:
    assert changed(Base(("dash",), own_key=True), tmp_path) == set()
    assert changed(Base(("dash",)), tmp_path) == set(load().bundles)  # the control


def test_a_change_of_such_a_base_changes_the_archives_that_use_it(tmp_path: Path) -> None:
    redis = load().bases["redis"]
    assert redis.own_key
    assert changed(replace(redis, packages=(*redis.packages, "ca-certificates")), tmp_path, name="redis") == {"shop"}


STATUS = """\
Package: mariadb
Status: install ok installed
Depends: libcrypt1, dpkg

Package: libcrypt1
Status: install ok installed

Package: dpkg
Status: install ok installed
"""


@pytest.mark.parametrize(("kind", "packages"), [(DebianRoot, ("mariadb",)), (NamedRoot, ("libcrypt1", "mariadb"))])
def test_a_base_gets_what_it_names_although_packaging_needs_it_too(
    kind: type[DebianRoot], packages: tuple[str, ...], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        info = tarfile.TarInfo("./var/lib/dpkg/status")
        info.size = len(STATUS)
        tar.addfile(info, io.BytesIO(STATUS.encode()))
    assert kind.read(tmp_path / "root.tar").closure(["mariadb", "libcrypt1"]) == packages
