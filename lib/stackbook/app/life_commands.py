"""The commands stop, start and snapshot: each a thin layer over one function, which is imported only when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import InputError

if TYPE_CHECKING:
    from stackbook.config.profile import Profile

NAMES = ("stop", "start", "snapshot")
ACTIONS = ("save", "list", "restore", "remove")


def arguments(add: Callable[..., Any]) -> None:
    """Add these commands and their arguments.

    Args:
        add: adds a command: its name, its help text, its function.
    """
    add("stop", "stop the lab's machines; everything on their disks stays", stop)
    add("start", "start a stopped lab, also after a reboot of this host, and wait until it is Ready", start)
    snapshot = add("snapshot", "save the whole lab, and restore it later", use_snapshots)
    snapshot.add_argument("action", choices=ACTIONS)
    snapshot.add_argument("name", nargs="?", default="", metavar="NAME")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `run`'s option about snapshots."""
    parser.add_argument(
        "--from-snapshot", nargs="?", const="", default=None, metavar="NAME",
        help="restore this snapshot first; without a name, the one that leaves the fewest chapters to run",
    )  # fmt: skip


def stop(options: argparse.Namespace) -> int:
    """Stop the lab's machines."""
    from stackbook.app import life

    life.stop(_profile(options), say=_say)
    return 0


def start(options: argparse.Namespace) -> int:
    """Start the lab's machines."""
    from stackbook.app import life

    life.start(_profile(options), say=_say)
    return 0


def use_snapshots(options: argparse.Namespace) -> int:
    """Save, list, restore or remove snapshots."""
    action, name, profile = options.action, options.name, _profile(options)
    if action != "list" and not name:
        raise InputError(f"snapshot {action} needs the snapshot's name", fix=f"stackbook snapshot {action} NAME")
    if action == "list" and name:
        raise InputError(f"snapshot list takes no name, but got {name!r}", fix="leave it out")
    if action == "save":
        from stackbook.app.snapshots.save import save

        save(profile, name, say=_say)
    elif action == "restore":
        from stackbook.app.snapshots.restore import restore

        restore(profile, name, say=_say)
    else:
        from stackbook.app.snapshots import listing

        for line in listing.lines(profile) if action == "list" else [listing.remove(profile, name)]:
            print(line)
    return 0


def restore_first(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Restore the snapshot that `run --from-snapshot` names, before the chapters."""
    if options.from_snapshot is None:
        return
    from stackbook.app.snapshots import nearest
    from stackbook.app.snapshots.restore import restore

    profile = _profile(options)
    name = options.from_snapshot or nearest.choose(
        profile, first=options.first, last=options.last, only=tuple(options.only), parameters=given, say=_say
    )
    if name:
        restore(profile, name, say=_say)


def snapshots_after_reset(profile: Profile, *, remove: bool) -> Sequence[str]:
    """Lines about a lab's snapshots at its reset: they are removed only on request."""
    from stackbook.app.snapshots import listing

    return listing.remove_all(profile) if remove else listing.kept(profile)


def _profile(options: argparse.Namespace) -> Profile:
    from stackbook.config.profile import Profile

    return Profile.load(options.profile)


def _say(text: str) -> None:
    print(text, flush=True)
