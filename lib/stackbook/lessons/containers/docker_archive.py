"""An image of an OCI archive as the tar that `docker load` reads, also that of Docker before 25, which knows no OCI layouts.

Format: https://github.com/moby/moby/blob/v20.10.24/image/spec/v1.2.md ("Combined Image JSON + Filesystem Changeset Format"). The
configuration and the layers are the same in both formats, so their bytes are copied; only `manifest.json` is new.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import IO

from stackbook.core.errors import CheckFailed
from stackbook.lessons.containers.image_store import Wanted, manifest_of

_CHUNK = 1 << 20


def chunks(image: Wanted) -> Iterator[bytes]:
    """The tar in pieces, with the image under all of its names.

    Raises:
        CheckFailed: the archive does not contain the image, or not all of it.
    """
    with tarfile.open(image.archive) as source:
        manifest = json.loads(_read(source, manifest_of(image)["digest"]))
        config, layers = manifest["config"]["digest"], [layer["digest"] for layer in manifest["layers"]]
        for digest in dict.fromkeys([config, *layers]):
            yield from _member(source, digest)
    names = list(image.names or (image.reference,))
    index = [{"Config": _path(config), "RepoTags": names, "Layers": [_path(layer) for layer in layers]}]
    text = json.dumps(index).encode()
    yield _header("manifest.json", len(text)) + text + _padding(len(text))
    yield bytes(2 * tarfile.BLOCKSIZE)  # the end of a tar


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blob(source: tarfile.TarFile, digest: str) -> tuple[IO[bytes], int]:
    """A file of the archive, and its size."""
    try:
        entry = source.getmember(_path(digest))
    except KeyError:
        raise CheckFailed(f"the archive does not contain {digest}") from None
    found = source.extractfile(entry)
    assert found is not None, "a blob is a file"
    return found, entry.size


def _read(source: tarfile.TarFile, digest: str) -> bytes:
    with _blob(source, digest)[0] as found:
        return found.read()


def _member(source: tarfile.TarFile, digest: str) -> Iterator[bytes]:
    found, size = _blob(source, digest)
    yield _header(_path(digest), size)
    with found:
        while part := found.read(_CHUNK):
            yield part
    yield _padding(size)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
