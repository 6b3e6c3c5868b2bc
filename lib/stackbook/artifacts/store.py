"""The content-addressed cache that all runs share.

    blobs/sha256/ab/abcd…     contents, named by their digest
    trees/<digest>/           unpacked folders (the Go toolchain)
    files/<digest>/<name>     the same contents under a readable name (hard links)
    index/<name>/<key>.json   the content for a recipe; the key is a hash of everything that determines the artifact
    history/<job>.json        how long a job took, in seconds, newest last
    partial/                  unfinished downloads
    locks/, logs/, tmp/, build/
    CACHEDIR.TAG              marks the folder as a cache of stackbook; see `cache_folder`

Files are created by a rename, so a reader never sees half a file.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stackbook.artifacts.cache_folder import claim, remove_folder
from stackbook.artifacts.digests import sha256_of, tree_digest
from stackbook.artifacts.job_locks import JobLock
from stackbook.core.errors import CorruptArtifact
from stackbook.core.locks import Lock

_KEEP = 2  # how many recipes are kept per name; older ones are removed with their contents
_HISTORY = 5
_INDEX_SECONDS = 300.0  # held while the content of a changed large file is hashed


@dataclass(frozen=True)
class Entry:
    """One cached artifact.

    Attributes:
        name: the artifact's name.
        key: the hash of its recipe.
        source: `release`, `published` (a release whose checksum is not pinned) or `registry`.
        version: the version of the component.
        kind: `file`, `archive` or `tree`.
        digest: SHA-256 of the content; for a tree, of all its contents.
        size: in bytes.
        mtime_ns: time of the content when it was last verified.
        verified: id of the boot in which the full digest was last verified.
        made: when it was made, in seconds since the epoch.
        seconds: how long it took to make.
    """

    name: str
    key: str
    source: str
    version: str
    kind: str
    digest: str
    size: int
    mtime_ns: int
    verified: str
    made: float
    seconds: float


class Store:
    """The cache below `root`; `say` takes a sentence if an entry is damaged.

    Raises:
        InputError: `root` is neither empty nor a cache of stackbook.
    """

    def __init__(self, root: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._say = say
        self._checked: set[tuple[str, str]] = set()
        self._threads, self._depth = threading.RLock(), 0
        self._boot = _boot_id()
        claim(root)
        for folder in ("blobs/sha256", "trees", "files", "index", "history", "partial", "locks", "logs", "tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for left in (root / "tmp").iterdir():
            if not _alive(left.name.split("-")[-2:-1]):
                remove_folder(left)

    def lock(self, name: str) -> JobLock:
        """The lock with this name, shared by all processes that use this cache."""
        return JobLock(self.root / "locks", name)

    @contextmanager
    def temporary(self, prefix: str) -> Iterator[Path]:
        """A temporary folder on the cache's file system; removed after the block."""
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=self.root / "tmp"))
        try:
            yield folder
        finally:
            remove_folder(folder)

    def find(self, name: str, keys: Sequence[str], *, verify: bool = False) -> Entry | None:
        """The entry of the first of `keys` that is in the cache and undamaged; None if there is none.

        Size and time are compared at each use. The whole content is compared once per boot, after any difference, and with
        `verify`. A damaged entry is removed with a message, so that the caller makes the artifact again.
        """
        for key in keys:
            entry = self._load(name, key)
            if entry is None:
                continue
            try:
                return self._sound(entry, verify=verify)
            except (CorruptArtifact, FileNotFoundError):
                if found := self._sound_or_dropped(name, key):
                    return found
        return None

    def _sound_or_dropped(self, name: str, key: str) -> Entry | None:
        """Check again while no other process changes the cache: an entry that was being added is now complete, or damaged."""
        with self._alone():
            entry = self._load(name, key)
            if entry is None:
                return None
            try:
                return self._sound(entry, verify=True)
            except CorruptArtifact as error:
                self.drop(entry)
                self._say(f"{error.message}; dropped from the cache, to be fetched or built again")
        return None

    def path(self, entry: Entry) -> Path:
        """The path of the content; a file has its own name there, an archive its digest as the name."""
        if entry.kind == "tree":
            return self.root / "trees" / entry.digest[:32]
        if entry.kind == "archive":
            return self._blob(entry.digest)
        return self.root / "files" / entry.digest[:16] / entry.name.rpartition(":")[2]

    def add_file(
        self, path: Path, *, name: str, key: str, source: str, version: str, seconds: float, kind: str = "file",
        digest: str = "",
    ) -> Entry:  # fmt: skip
        """Move `path` into the cache; pass `digest` if it has just been computed."""
        digest = digest or sha256_of(path)
        blob = self._blob(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o644 if kind == "archive" else 0o755)
        with path.open("rb+") as written:
            os.fsync(written.fileno())
        with self._alone():
            path.replace(blob)
            stat = blob.stat()
            entry = Entry(
                name, key, source, version, kind, digest, stat.st_size, stat.st_mtime_ns, self._boot, time.time(),
                seconds,
            )  # fmt: skip
            if kind == "file":
                self._link(entry)
            return self._save(entry)

    def add_tree(self, folder: Path, *, name: str, key: str, source: str, version: str, seconds: float) -> Entry:
        """Move a whole folder into the cache."""
        digest, size = tree_digest(folder)
        target = self.root / "trees" / digest[:32]
        with self._alone():
            if target.exists() and tree_digest(target)[0] != digest:
                shutil.rmtree(target)
            if not target.exists():
                folder.replace(target)
            stat = target.stat()
            entry = Entry(
                name, key, source, version, "tree", digest, size, stat.st_mtime_ns, self._boot, time.time(), seconds
            )
            return self._save(entry)

    def drop(self, entry: Entry) -> None:
        """Remove the entry, and its content unless another entry has the same."""
        with self._alone():
            self._index(entry.name, entry.key).unlink(missing_ok=True)
            if any(other.digest == entry.digest for other in self.entries()):
                return
            if entry.kind == "tree":
                shutil.rmtree(self.path(entry), ignore_errors=True)
            else:
                shutil.rmtree(self.root / "files" / entry.digest[:16], ignore_errors=True)
                self._blob(entry.digest).unlink(missing_ok=True)

    def entries(self, name: str = "*") -> list[Entry]:
        """All entries, or those with one name, newest first."""
        found = (_read_entry(path) for path in self.root.glob(f"index/{name.replace(':', '_')}/*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: -entry.made)

    def record_seconds(self, job: str, seconds: float) -> None:
        """Add to the history how long `job` took."""
        path = self._history(job)
        _write_json(path, [*_read_numbers(path), round(seconds, 1)][-_HISTORY:])

    def estimate(self, job: str, default: float) -> float:
        """How many seconds `job` usually takes: the median of its history, or `default`."""
        history = _read_numbers(self._history(job))
        return statistics.median(history) if history else default

    def _sound(self, entry: Entry, *, verify: bool) -> Entry:
        path = self.path(entry)
        if entry.kind == "file" and not path.exists():
            with self._alone():
                if not path.exists() and self._blob(entry.digest).exists():
                    self._link(entry)
        if not path.exists():
            raise CorruptArtifact(f"{entry.name}: its content is missing from the cache")
        stat = path.stat()
        if entry.kind != "tree" and stat.st_size != entry.size:
            raise CorruptArtifact(f"{entry.name}: {stat.st_size} bytes in the cache instead of {entry.size}")
        known = stat.st_mtime_ns == entry.mtime_ns and entry.verified == self._boot
        if known and (not verify or (entry.name, entry.digest) in self._checked):
            return entry
        actual = tree_digest(path)[0] if entry.kind == "tree" else sha256_of(path)
        if actual != entry.digest:
            raise CorruptArtifact(f"{entry.name}: its content in the cache has changed (sha256 {actual[:12]}…)")
        self._checked.add((entry.name, entry.digest))
        fresh = replace(entry, mtime_ns=stat.st_mtime_ns, verified=self._boot)
        return self._save(fresh) if fresh != entry else entry

    def _link(self, entry: Entry) -> None:
        path = self.path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        os.link(self._blob(entry.digest), temporary)
        temporary.replace(path)
        temporary.unlink(missing_ok=True)  # rename(2) does nothing if both names are links to one file

    def _save(self, entry: Entry) -> Entry:
        with self._alone():
            _write_json(self._index(entry.name, entry.key), asdict(entry))
            for old in self.entries(entry.name)[_KEEP:]:
                self.drop(old)
        return entry

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the index, so that no other thread or process adds or removes entries; can be nested."""
        with self._threads:
            if self._depth:
                yield
                return
            with Lock(self.root / "locks" / "index.lock").held(
                what="the cache's index to be free", timeout=_INDEX_SECONDS
            ):
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def _load(self, name: str, key: str) -> Entry | None:
        return _read_entry(self._index(name, key))

    def _blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest[:2] / digest

    def _index(self, name: str, key: str) -> Path:
        return self.root / "index" / name.replace(":", "_") / f"{key}.json"

    def _history(self, job: str) -> Path:
        return self.root / "history" / f"{job.replace(':', '_')}.json"


def _alive(pid: list[str]) -> bool:
    """Whether the process in the name of a temporary folder still runs."""
    return bool(pid) and Path("/proc", pid[0]).exists()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def _read_entry(path: Path) -> Entry | None:
    try:
        return Entry(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _read_numbers(path: Path) -> list[float]:
    try:
        return [float(value) for value in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []
