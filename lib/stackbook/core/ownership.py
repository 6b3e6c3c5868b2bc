"""Under sudo, files that stackbook creates belong to the user who called sudo; other files keep their owner.

The user can write to these folders while root works in them. So the code walks folders by their descriptors, does not
follow links, does not enter other file systems, and leaves a file with a second name elsewhere (a hard link) to root.
Otherwise a user could become the owner of any file on this host.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class User(NamedTuple):
    """The user who called sudo."""

    uid: int
    gid: int


class _Seen(NamedTuple):
    folder: int
    name: str
    stat: os.stat_result


def user() -> User | None:
    """The user who called sudo; None if nobody did, or if root did."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() or not uid.isdecimal() or not gid.isdecimal() or uid == "0":
        return None
    return User(int(uid), int(gid))


def make(folder: Path, *, mode: int = 0o777) -> Path:
    """Create a folder for stackbook and its missing parents; existing folders stay as they are.

    Under sudo it belongs to the user from the start, and so does each new parent in a folder of the user.
    """
    owner = user()
    for each in (*reversed(folder.parents), folder):
        if each.exists():
            continue
        each.mkdir(mode=mode, exist_ok=True)
        if owner and (each == folder or each.parent.stat().st_uid == owner.uid):
            _give_folder(each, owner)
    return folder


def _give_folder(folder: Path, owner: User) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(opened).st_uid == 0:
            os.fchown(opened, *owner)
    finally:
        os.close(opened)


def give(tops: list[Path], owner: User) -> int:
    """Make the user the owner of what root owns in and below these files and folders; returns how many changed.

    Args:
        tops: files and folders of stackbook. The owner of a link changes; it is not followed.
        owner: the new owner.
    """
    names: Counter[tuple[int, int]] = Counter()
    for seen in _below(tops):
        if _is_shared(seen.stat):
            names[seen.stat.st_dev, seen.stat.st_ino] += 1
    given = 0
    for folder, name, found in _below(tops):
        elsewhere = _is_shared(found) and names[found.st_dev, found.st_ino] < found.st_nlink
        if found.st_uid == 0 and not elsewhere:
            with suppress(FileNotFoundError):
                os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
                given += 1
    return given


def _is_shared(found: os.stat_result) -> bool:
    return not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1


def _below(tops: list[Path]) -> Iterator[_Seen]:
    """Each top and everything below it, with the open folder that contains it."""
    for top in tops:
        try:
            above = os.open(top.parent, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            yield from _entries(above, [top.name], None)
            first = os.stat(top.name, dir_fd=above, follow_symlinks=False)
            if not stat.S_ISDIR(first.st_mode):
                continue
            for _, folders, files, opened in os.fwalk(top.name, dir_fd=above, follow_symlinks=False):
                inside = list(_entries(opened, [*folders, *files], first.st_dev))
                yield from inside
                here = {seen.name for seen in inside}
                folders[:] = [name for name in folders if name in here]
        except FileNotFoundError:
            continue
        finally:
            os.close(above)


def _entries(folder: int, names: list[str], device: int | None) -> Iterator[_Seen]:
    for name in names:
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if device is None or found.st_dev == device:
                yield _Seen(folder, name, found)
