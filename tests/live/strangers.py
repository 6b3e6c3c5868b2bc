"""What somebody else has on this host beside the lab, with names like the lab's: planted before the live tests, there after the reset.

`python tests/live/strangers.py plant` before the lab is built, `… remove` at the end; each may be done again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.core import ownership, paths
from stackbook.machines.transports import Host, LocalHost

_CHAIN, _RULE = "SOMEBODY", ("-s", "198.51.100.7/32", "-j", "RETURN")
_CONTAINER, _VOLUME, _NETWORK, _SPACE = "stackbook-somebody", "stackbook-somebody-kubelet", "stackbook-two", "somebody"
TEXT = "somebody else's: stackbook has no business here\n"


@dataclass(frozen=True)
class Thing:
    """One thing of a stranger's: the command that says whether it is there, those that make it and that remove it."""

    name: str
    there: tuple[str, ...]
    make: Sequence[tuple[str, ...]]
    remove: Sequence[tuple[str, ...]]


THINGS = (
    Thing(  # never started: it needs no image
        f"container {_CONTAINER}",
        ("podman", "container", "inspect", "--format", "{{.State.Status}}", _CONTAINER),
        [("podman", "create", "--name", _CONTAINER, "--network", "none", "--rootfs", "/mnt", "true")],
        [("podman", "rm", _CONTAINER)],
    ),
    Thing(
        f"volume {_VOLUME}",
        ("podman", "volume", "inspect", _VOLUME),
        [("podman", "volume", "create", _VOLUME)],
        [("podman", "volume", "rm", _VOLUME)],
    ),
    Thing(
        f"network {_NETWORK}",
        ("podman", "network", "inspect", _NETWORK),
        [("podman", "network", "create", "--subnet", "192.168.250.0/24", _NETWORK)],
        [("podman", "network", "rm", _NETWORK)],
    ),
    Thing(
        f"rule in the chain {_CHAIN}",
        ("iptables", "-C", _CHAIN, *_RULE),
        [("iptables", "-N", _CHAIN), ("iptables", "-A", _CHAIN, *_RULE)],
        [("iptables", "-F", _CHAIN), ("iptables", "-X", _CHAIN)],
    ),
    Thing(
        f"network namespace {_SPACE}",
        ("ip", "netns", "exec", _SPACE, "true"),
        [("ip", "netns", "add", _SPACE)],
        [("ip", "netns", "delete", _SPACE)],
    ),
)


def files() -> list[Path]:
    """Files beside the cache, and in the folder of the states."""
    return [paths.cache().parent / "stackbook-somebody.txt", paths.states() / "somebody.txt"]


def plant(host: Host) -> None:
    """Make what is missing."""
    for path in files():
        ownership.make(path.parent)
        path.write_text(TEXT, encoding="utf-8")
    for thing in THINGS:
        if not host.run(thing.there, check=False).ok:
            for command in thing.make:  # half of it may be there
                host.run(command, check=command == thing.make[-1])


def missing(host: Host) -> list[str]:
    """What is not there any more, or not as it was."""
    gone = [str(path) for path in files() if not path.is_file() or path.read_text(encoding="utf-8") != TEXT]
    return gone + [thing.name for thing in THINGS if not host.run(thing.there, check=False).ok]


def remove(host: Host) -> None:
    """Take away what is there."""
    for path in files():
        path.unlink(missing_ok=True)
    for thing in THINGS:
        for command in thing.remove:
            host.run(command, check=False)


if __name__ == "__main__":
    {"plant": plant, "remove": remove}[sys.argv[1]](LocalHost())
