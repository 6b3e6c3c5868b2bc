"""The labs of a class: their profiles, their addresses, and whether they fit on this host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from stackbook.app import preflight
from stackbook.config.chapters import Chapter
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import HostUnfit, InputError

FOLDER = "_class"  # no lab has this name
MARK = "# A lab of a class, written by `stackbook class up`; `stackbook class down` removes it.\n"
MOST = 16
SUBNETS = "192.168.101.0/24"
"""The first lab's subnet; each further lab has the next one."""
PORT = 8901
"""The first learner's JupyterLab; each further one has the next port."""
# Measured on labs of two machines (`make test-more`, tests/live/test_class.py): a cluster with its pod network, and each machine.
SMALL, SMALL_PER_NODE = 0.5 * preflight.GIB, 0.35 * preflight.GIB
_LAST_SMALL = "04"


@dataclass(frozen=True)
class Seat:
    """A learner's place in the class, with its own lab.

    Attributes:
        number: from 1.
        file: the lab's profile.
    """

    number: int
    file: Path

    @property
    def name(self) -> str:
        """The lab's name."""
        return f"class-{self.number}"

    @property
    def port(self) -> int:
        """The loopback port of its JupyterLab."""
        return PORT + self.number - 1

    @property
    def work(self) -> Path:
        """The learner's own copy of the notebooks."""
        return self.file.parent / self.name

    @property
    def profile(self) -> Profile:
        """The lab's profile."""
        return Profile.load(self.file)

    @property
    def exists(self) -> bool:
        """Whether its machines were created."""
        return (paths.state(self.name) / "instance").exists()


def folder() -> Path:
    """The folder of the class's profiles."""
    return paths.states() / FOLDER


def seats() -> list[Seat]:
    """The labs that `class up` has set up, by number."""
    found = [re.fullmatch(r"class-(\d+)\.yaml", path.name) for path in folder().glob("class-*.yaml")]
    numbers = sorted(int(match[1]) for match in found if match)
    return [Seat(number, folder() / f"class-{number}.yaml") for number in numbers]


def check_size(count: int) -> None:
    """Refuse an invalid number of labs.

    Raises:
        InputError: the error names the valid range.
    """
    if not 1 <= count <= MOST:
        raise InputError(f"a class has 1 to {MOST} labs, not {count}", fix="stackbook class up 4")


def text(number: int, *, nodes: int) -> str:
    """The profile of one lab: it has its own subnet; everything else is as in the default profile."""
    subnet = ipaddress.ip_network(int(ipaddress.ip_network(SUBNETS)[0]) + 256 * (number - 1)).supernet(new_prefix=24)
    machines = ["master", *(f"node{n}" for n in range(1, nodes))]
    data = {
        "target": "embedded",
        "lab": f"class-{number}",
        "nodes": [
            {"name": f"c{number}-{name}", "address": str(subnet[3 + place])} for place, name in enumerate(machines)
        ],
        "subnet": str(subnet),
        "gateway": str(subnet[2]),
    }
    return MARK + yaml.safe_dump(data, sort_keys=False)


def set_up(count: int, *, nodes: int = 2) -> list[Seat]:
    """Write the missing profiles; existing ones stay as they are.

    Returns:
        The first `count` labs of the class.
    """
    folder().mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(1, count + 1):
        seat = Seat(number, folder() / f"class-{number}.yaml")
        if not seat.file.exists():
            seat.file.write_text(text(number, nodes=nodes), encoding="utf-8")
        found.append(seat)
    return found


def needed(seat_count: int, *, nodes: int, last: Chapter) -> float:
    """The memory in bytes that this many labs need, up to and including a chapter."""
    small = last.number <= _LAST_SMALL
    base, each = (SMALL, SMALL_PER_NODE) if small else (preflight.MEMORY_BASE, preflight.MEMORY_PER_NODE)
    return seat_count * (base + nodes * each)


def demand_inotify(missing: Sequence[Seat], *, nodes: int, limit: int, used: int) -> None:
    """Refuse a class if there are too few inotify instances for its machines, before anything is created.

    Args:
        missing: the labs that will be created.
        nodes: the number of machines of each.
        limit: the kernel's limit for a user.
        used: how many of them are in use.

    Raises:
        HostUnfit: there are too few; the error has the command that raises the limit.
    """
    wanted = len(missing) * preflight.inotify_needed(nodes)
    if used + wanted > limit:
        raise HostUnfit(
            f"{len(missing)} labs need {wanted} inotify instances, but only {limit - used} of {limit} are free",
            fix=f"sysctl -w fs.inotify.max_user_instances={2 * (used + wanted)}",
        )


def demand_memory(missing: Sequence[Seat], *, nodes: int, last: Chapter, free: float) -> None:
    """Refuse a class for which there is too little memory, before anything is created.

    Args:
        missing: the labs that will be created.
        nodes: the number of machines of each.
        last: the last chapter that each lab will run.
        free: the memory in bytes that this host has available.

    Raises:
        HostUnfit: there is too little; the error says how many labs fit.
    """
    wanted = needed(len(missing), nodes=nodes, last=last)
    if wanted <= free:
        return
    fit = int(free // needed(1, nodes=nodes, last=last))
    raise HostUnfit(
        f"{len(missing)} labs through chapter {last.number} need {wanted / preflight.GIB:.1f} GiB, "
        f"but only {free / preflight.GIB:.1f} GiB are available",
        fix=f"this host has room for {fit} more" if fit else "free or add memory",
    )
