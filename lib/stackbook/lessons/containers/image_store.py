"""The lab's images as podman reads them: one read-only store for each image, made once from an OCI archive.

A container needs an image's layers as folders. Unpacking those of the bookshop takes 10 s, so the stores stay in the cache
(`build/containers`). podman reads them as additional image stores (containers-storage.conf(5)), and never writes to them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.core import paths, temp_dirs
from stackbook.core.errors import CheckFailed
from stackbook.core.locks import Lock
from stackbook.lessons.containers import namespaces

_NAME = "io.containerd.image.name"
_PULL = """\
id=$(podman pull --quiet oci:layout)
podman tag "$id" "$@"
podman untag "$id" localhost/layout:latest
"""


@dataclass(frozen=True)
class Wanted:
    """An image.

    Attributes:
        reference: its name in the archive.
        archive: the OCI archive that contains it.
        names: the names that it gets; empty for its name in the archive.
    """

    reference: str
    archive: Path
    names: tuple[str, ...] = ()


def folder() -> Path:
    """The folder of the stores."""
    return paths.cache() / "build" / "containers"


@contextlib.contextmanager
def held(images: list[Wanted], *, timeout: float = 240.0) -> Iterator[list[Path]]:
    """The stores of these images, made if they are missing; nobody removes them while the block runs.

    Args:
        images: the images.
        timeout: deadline for each store that is missing, in seconds.

    Raises:
        CheckFailed: an archive does not contain the image, or podman refuses it.
        WaitTimeout: another process makes the store, and does not end in time.
    """
    root = folder()
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as scope:
        yield [scope.enter_context(_held(image, root, timeout)) for image in images]


@contextlib.contextmanager
def _held(image: Wanted, root: Path, timeout: float) -> Iterator[Path]:
    manifest = manifest_of(image)
    names = image.names or (image.reference,)
    key = hashlib.sha256(f"{names} {manifest['digest']}".encode()).hexdigest()[:12]
    name = re.sub(r"\W", "-", image.reference.rpartition("/")[2].partition(":")[0])
    store = root / f"{name}.{key}"
    lock, what = Lock(root / f"{name}.{key}.lock"), f"another process that reads the image {image.reference}"
    with lock.held(what=what, timeout=timeout, found=store.is_dir) as making:
        if not making.found:
            _make(image, manifest, store, timeout)
    with lock.held(what=what, timeout=timeout, shared=True):  # as long as it is used, nobody removes it
        _remove_older(root, name, store)
        yield store


def manifest_of(image: Wanted) -> dict[str, Any]:
    """The entry of an image in its archive's index: media type, digest and size.

    Raises:
        CheckFailed: the archive does not contain it.
    """
    with tarfile.open(image.archive) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        entries = json.load(index)["manifests"]
    for entry in entries:
        if entry["annotations"][_NAME] == image.reference:
            return {key: value for key, value in entry.items() if key != "annotations"}
    raise CheckFailed(f"{image.archive.name} does not contain the image {image.reference}")


def _make(image: Wanted, manifest: dict[str, Any], store: Path, timeout: float) -> None:
    """Unpack the archive, let podman read its one image from there, and move the finished store to its place."""
    with temp_dirs.folder("imagestore", store.parent) as work:
        layout = work / "layout"
        with tarfile.open(image.archive) as archive:
            archive.extractall(layout)
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
        inner = namespaces.Folder(work / "podman", graph_root=work / "store")
        inner.write()
        answer = namespaces.run(inner, _PULL, *(image.names or (image.reference,)), cwd=work, timeout=timeout)
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CheckFailed(f"podman cannot read the image {image.reference}: {last}")
        (work / "store").rename(store)


def _remove_older(root: Path, name: str, current: Path) -> None:
    """Remove the stores of this image's earlier contents that nobody holds."""
    for old in root.glob(f"{name}.*"):
        if old.suffix == ".lock" or old == current or not old.is_dir():
            continue
        with Lock(root / f"{old.name}.lock").attempt() as alone:
            if alone:
                shutil.rmtree(old, ignore_errors=True)
