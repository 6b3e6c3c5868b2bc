"""Write and read a bundle: one file with the components of a lab, for a host without network access.

A bundle is an uncompressed tar, because its contents are compressed already. Its first member lists the others:

    stackbook-bundle-1/<sha256 of this member>.json   the format, the profile, the entries of the cache
    files/<digest>                                    a file of the cache; its name is its SHA-256
    trees/<digest>/…                                  a folder of the cache, member by member; its name is its tree digest
    modules/…                                         Go's downloads of the modules that chapters compile, verified by go.sum

The same components give the same bytes. So an incomplete file is compared with what should be in it, and continued.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stackbook.artifacts.digests import tree_digest
from stackbook.artifacts.store import Entry, Store
from stackbook.core.errors import InputError

FORMAT = 1
HEAD = re.compile(r"stackbook-bundle-(\d+)/([0-9a-f]{64})\.json")
_CHUNK = 1 << 20
_DAMAGED = "copy it again, or save it again: stackbook bundle save"
Say = Callable[[int], object]
"""Takes the number of bytes that were written or read so far."""


@dataclass(frozen=True)
class Contents:
    """The contents of a bundle.

    Attributes:
        profile: the name of the profile for which it was made.
        chapters: the ids of the chapters for which it has the components.
        entries: the entries of the cache.
        modules: paths below Go's module cache, with their sizes.
    """

    profile: str
    chapters: tuple[str, ...]
    entries: tuple[Entry, ...]
    modules: tuple[tuple[str, int], ...] = ()

    @property
    def size(self) -> int:
        """The size of all other members, in bytes."""
        return sum(entry.size for entry in self.entries) + sum(size for _, size in self.modules)

    def text(self) -> bytes:
        """The text of the first member, without values that differ from day to day."""
        kept = [{**asdict(e), "mtime_ns": 0, "verified": "", "made": 0.0} for e in self.entries]
        data = {
            "format": FORMAT,
            "profile": self.profile,
            "chapters": self.chapters,
            "entries": kept,
            "modules": self.modules,
        }
        return json.dumps(data, sort_keys=True, indent=1).encode()


@dataclass
class _Member:
    info: tarfile.TarInfo
    source: Path | bytes | None = field(default=None, repr=False)

    def open(self) -> IO[bytes]:
        if isinstance(self.source, Path):
            return self.source.open("rb")
        return io.BytesIO(self.source or b"")


# writing


def members(contents: Contents, store: Store, modules: Path) -> Iterator[_Member]:
    """All members, in an order that depends only on the contents."""
    text = contents.text()
    yield _member(f"stackbook-bundle-{FORMAT}/{hashlib.sha256(text).hexdigest()}.json", len(text), text)
    for entry in contents.entries:
        path = store.path(entry)
        if entry.kind != "tree":
            yield _member(f"files/{entry.digest}", entry.size, path)
            continue
        for inside in sorted(path.rglob("*")):
            name = f"trees/{entry.digest}/{inside.relative_to(path).as_posix()}"
            if inside.is_symlink():
                found = _member(name, 0, None)
                found.info.type, found.info.linkname = tarfile.SYMTYPE, str(inside.readlink())
                yield found
            elif inside.is_file():
                found = _member(name, inside.stat().st_size, inside)
                found.info.mode = 0o755 if inside.stat().st_mode & 0o100 else 0o644
                yield found
    for name, size in contents.modules:
        yield _member(f"modules/{name}", size, modules / name)


def _member(name: str, size: int, source: Path | bytes | None) -> _Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return _Member(info, source)


def write(target: Path, found: Iterable[_Member], *, say: Say = lambda _: None) -> int:
    """Write the members to a file beside `target` and rename it at the end; returns its size.

    If an earlier try was interrupted, the part of its file that is right is kept.

    Raises:
        InputError: the file cannot be written.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        with partial.open("r+b" if partial.exists() else "w+b") as sink:
            same = True
            for each in found:
                for chunk in _chunks(each):
                    if same:
                        at = sink.tell()
                        same = sink.read(len(chunk)) == chunk
                        if not same:
                            sink.seek(at)
                            sink.truncate()
                    if not same:
                        sink.write(chunk)
                say(sink.tell())
            end = b"\0" * (2 * tarfile.BLOCKSIZE)
            sink.write(end)
            sink.truncate()
            sink.flush()
            os.fsync(sink.fileno())
            size = sink.tell()
        partial.replace(target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror}", fix="name a file on a disk with more room; then save again"
        ) from None
    return size


def _chunks(each: _Member) -> Iterator[bytes]:
    """A member's header, its content, and the padding of its last block."""
    yield each.info.tobuf(tarfile.PAX_FORMAT)
    left = each.info.size
    if not left:
        return
    with each.open() as source:
        while left and (chunk := source.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise InputError(f"{each.info.name} became shorter while it was read", fix="save the bundle again")
    yield b"\0" * (-each.info.size % tarfile.BLOCKSIZE)


# reading


@dataclass
class Reader:
    """A bundle that is read member by member, in order."""

    path: Path
    tar: tarfile.TarFile
    contents: Contents

    @classmethod
    def open(cls, path: Path) -> Reader:
        """Open a bundle and read its list of contents.

        Raises:
            InputError: there is no such file, or it is not a bundle of this format.
        """
        try:
            tar = tarfile.open(path, "r|", bufsize=1 << 20)  # noqa: SIM115 – closed by `close`
            first = tar.next()
        except (OSError, tarfile.TarError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a tar file"
            raise InputError(
                f"{path} is not a bundle: {reason}", fix="name a file that `stackbook bundle save` wrote"
            ) from None
        head = HEAD.fullmatch(first.name) if first else None
        if first is None or head is None:
            tar.close()
            raise InputError(
                f"{path} is not a bundle of stackbook", fix="name a file that `stackbook bundle save` wrote"
            )
        if int(head[1]) != FORMAT:
            tar.close()
            raise InputError(
                f"{path} has format {head[1]}, and this version reads {FORMAT}", fix="save it again with this version"
            )
        try:
            text = _content(tar, first).read()
            if hashlib.sha256(text).hexdigest() != head[2]:
                raise ValueError("another checksum")
            contents = _contents(json.loads(text))
        except (OSError, tarfile.TarError, ValueError, TypeError, KeyError):
            tar.close()
            raise InputError(f"{path} is damaged: its list of contents cannot be read", fix=_DAMAGED) from None
        return cls(path, tar, contents)

    def close(self) -> None:
        """Close the file."""
        self.tar.close()

    def unpack(self, store: Store, modules: Path, *, wanted: Sequence[Entry], say: Say = lambda _: None) -> int:
        """Add the wanted entries to the cache, each after all of it was read and verified; returns how many.

        Raises:
            InputError: the bundle is damaged or truncated; entries that were read before are in the cache.
        """
        left = {entry.digest: entry for entry in wanted}
        downloads, done = dict(self.contents.modules), 0
        try:
            with store.temporary("bundle") as folder:
                tree = ""
                for info in self.tar:
                    if HEAD.fullmatch(info.name):
                        continue
                    top, _, rest = info.name.partition("/")
                    if tree and not info.name.startswith(f"trees/{tree}/"):
                        done += self._tree(store, left.pop(tree), folder / tree)
                        tree = ""
                    if top == "files" and rest in left:
                        done += self._file(store, left.pop(rest), info, folder / "file")
                    elif top == "trees" and rest.partition("/")[0] in left:
                        tree = rest.partition("/")[0]
                        self._inside(info, folder, rest)
                    elif top == "modules":
                        self._inside(info, modules, rest)
                        downloads.pop(rest, None)
                    elif top not in ("files", "trees"):
                        raise InputError(f"{self.path} is damaged: it has a member {info.name!r}", fix=_DAMAGED)
                    say(info.offset_data + info.size)
                if tree:
                    done += self._tree(store, left.pop(tree), folder / tree)
        except (EOFError, tarfile.TarError):
            raise InputError(f"{self.path} is damaged or truncated", fix=_DAMAGED) from None
        except OSError as error:
            raise InputError(
                f"the cache {store.root} cannot be written: {error.strerror}", fix="make room there"
            ) from None
        if left or downloads:
            missing = next((entry.name for entry in left.values()), "") or next(iter(downloads))
            raise InputError(f"{self.path} is truncated: {missing} is missing", fix=_DAMAGED)
        return done

    def _file(self, store: Store, entry: Entry, info: tarfile.TarInfo, path: Path) -> int:
        digest = hashlib.sha256()
        with _content(self.tar, info) as source, path.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                sink.write(chunk)
        if digest.hexdigest() != entry.digest:
            raise InputError(f"{self.path} is damaged: {entry.name} has another checksum", fix=_DAMAGED)
        store.add_file(path, name=entry.name, key=entry.key, source=entry.source, version=entry.version,
                       seconds=entry.seconds, kind=entry.kind, digest=entry.digest)  # fmt: skip
        return 1

    def _tree(self, store: Store, entry: Entry, folder: Path) -> int:
        if tree_digest(folder)[0] != entry.digest:
            raise InputError(f"{self.path} is damaged: {entry.name} has another checksum", fix=_DAMAGED)
        store.add_tree(folder, name=entry.name, key=entry.key, source=entry.source, version=entry.version,
                       seconds=entry.seconds)  # fmt: skip
        return 1

    def _inside(self, info: tarfile.TarInfo, folder: Path, name: str) -> None:
        """Write one member below a folder; refuses paths and links that lead outside."""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/") or not (info.isfile() or info.issym()):
            raise InputError(f"{self.path} is damaged: {info.name!r} leads outside the cache", fix=_DAMAGED)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if info.issym():
            target = PurePosixPath(os.path.normpath(PurePosixPath(*parts[1:]).parent / info.linkname))
            if info.linkname.startswith("/") or target.parts[:1] == ("..",):
                raise InputError(f"{self.path} is damaged: {info.name!r} leads outside the cache", fix=_DAMAGED)
            path.symlink_to(info.linkname)
            return
        with _content(self.tar, info) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        path.chmod(0o755 if info.mode & 0o100 else 0o644)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(info)
    if found is None:
        raise tarfile.ReadError(f"{info.name} has no content")
    return found


def _contents(data: dict[str, Any]) -> Contents:
    modules = tuple((str(name), int(size)) for name, size in data["modules"])
    return Contents(str(data["profile"]), tuple(data["chapters"]), tuple(Entry(**e) for e in data["entries"]), modules)
