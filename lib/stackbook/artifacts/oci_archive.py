"""OCI archives in pure Python: images made of layers, several images in one file, the same bytes every time.

Layers are uncompressed tars, so that an import copies them and nothing more; a layer that several images share is
in the archive once. Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md; the annotation
with the full name is the one that containerd's importer reads (`ctr images import`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 20
_BLOCK = 512
_RECORD = 10240
_TYPES = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Content:
    """The bytes of a file: `data`, or `size` bytes of `path` from `offset` on."""

    size: int
    path: Path | None = None
    offset: int = 0
    data: bytes = b""

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces."""
        if self.path is None:
            yield self.data
            return
        left = self.size
        with self.path.open("rb") as source:
            source.seek(self.offset)
            while left and (chunk := source.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise OSError(f"{self.path} ended {left} bytes early")


@dataclass(frozen=True)
class Entry:
    """One member of a layer; `path` has no leading slash, `kind` is `file`, `folder` or `link`."""

    path: str
    kind: str
    mode: int = 0o755
    owner: int = 0
    target: str = ""
    content: Content | None = None


@dataclass(frozen=True)
class Layer:
    """Members of one layer, in the order in which they are written."""

    entries: tuple[Entry, ...]

    def chunks(self) -> Iterator[bytes]:
        """The layer as an uncompressed tar: times are 0, owners numbers, nothing of this host is in it."""
        written = 0
        for entry in self.entries:
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode, info.linkname = _TYPES[entry.kind], entry.mode, entry.target
            info.uid = info.gid = entry.owner
            info.size = entry.content.size if entry.content else 0
            header = info.tobuf(tarfile.PAX_FORMAT)
            yield header
            written += len(header)
            if entry.content:
                yield from entry.content.chunks()
                padding = -info.size % _BLOCK
                yield b"\0" * padding
                written += info.size + padding
        yield b"\0" * (2 * _BLOCK + -(written + 2 * _BLOCK) % _RECORD)


@dataclass(frozen=True)
class Image:
    """An image: its full name, layers from below, and how it starts."""

    reference: str
    layers: tuple[Layer, ...]
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""


def parents(paths: Sequence[str], *, owner: int = 0) -> list[Entry]:
    """Entries for the folders above `paths`, each once, from the top down.

    >>> [entry.path for entry in parents(["usr/bin/a", "usr/b"])]
    ['usr', 'usr/bin']
    """
    found = {str(parent) for path in paths for parent in Path(path).parents if str(parent) != "."}
    return [Entry(path, "folder", 0o755, owner) for path in sorted(found)]


def write_archive(images: Sequence[Image], target: Path) -> str:
    """Write the images as one OCI archive to `target`; returns the archive's SHA-256.

    Each layer is read twice: once for its digest, which comes before it in the archive, once to be copied.
    """
    layers: dict[Layer, tuple[str, int]] = {}
    for image in images:
        for layer in image.layers:
            if layer not in layers:
                layers[layer] = _measure(layer)
    blobs: dict[str, bytes] = {}
    manifests = [_manifest(image, layers, blobs) for image in images]
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests})
    with target.open("wb") as raw:
        sink = _Hashing(raw)
        _member(sink, "oci-layout", [_json({"imageLayoutVersion": "1.0.0"})], 30)
        _member(sink, "index.json", [index], len(index))
        for digest, data in sorted(blobs.items()):
            _member(sink, f"blobs/sha256/{digest}", [data], len(data))
        by_digest = {digest: (layer, size) for layer, (digest, size) in layers.items()}
        for digest, (layer, size) in sorted(by_digest.items()):
            _member(sink, f"blobs/sha256/{digest}", layer.chunks(), size)
        sink.write(b"\0" * 2 * _BLOCK)
        return sink.digest.hexdigest()


def _manifest(image: Image, layers: Mapping[Layer, tuple[str, int]], blobs: dict[str, bytes]) -> dict[str, Any]:
    config: dict[str, Any] = {"Env": [f"{name}={value}" for name, value in image.env]}
    config |= {"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}
    config |= {"Cmd": list(image.command)} if image.command else {}
    config |= {"User": image.user} if image.user else {}
    digests = [layers[layer] for layer in image.layers]
    document = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest, _ in digests]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "stackbook"} for _ in digests],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(blobs, _CONFIG, document),
        "layers": [{"mediaType": _LAYER, "digest": f"sha256:{digest}", "size": size} for digest, size in digests],
    }
    return {
        **_blob(blobs, _MANIFEST, manifest),
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {
            "io.containerd.image.name": image.reference,
            "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
        },
    }


def _blob(blobs: dict[str, bytes], media_type: str, document: object) -> dict[str, Any]:
    data = _json(document)
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _measure(layer: Layer) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in layer.chunks():
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


class _Hashing(io.RawIOBase):
    """Writes through and keeps the digest of all that was written."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._sink.write(data)


def _member(sink: _Hashing, name: str, chunks: Iterator[bytes] | list[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    sink.write(info.tobuf(tarfile.USTAR_FORMAT))
    for chunk in chunks:
        sink.write(chunk)
    sink.write(b"\0" * (-size % _BLOCK))
