"""The machines: whether they exist, run and answer; disks, memory, clock, names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import full_disks
from stackbook.app.diagnose.snapshot import ABSENT, RUNNING, Snapshot
from stackbook.machines import facts

LAYER = "machines"
CLOCK_OFF = 2.0
"""Seconds; beyond that, leases and certificates are affected."""
MEMORY_LEFT = 0.04
"""The share of memory that must be available."""


def state(snapshot: Snapshot) -> Iterator[Cause]:
    """Each machine runs."""
    provider = f"podman unpause {snapshot.profile.lab}-"
    states = [machine.state for machine in snapshot.machines.values()]
    everywhere = set(states) == {ABSENT}
    if states and not set(states) & {RUNNING, ABSENT, "paused"}:
        seen = tuple(f"podman reports {snapshot.profile.lab}-{m.name} as {m.state}" for m in snapshot.machines.values())
        claim = f"the lab {snapshot.profile.lab!r} is stopped"
        yield Cause("lab-stopped", LAYER, claim, seen, snapshot.stackbook("start"), weight=0)
        return
    for machine in snapshot.machines.values():
        seen = (f"podman reports {snapshot.profile.lab}-{machine.name} as {machine.state}",)
        if machine.state == "paused":
            yield Cause("machine-paused", LAYER, f"{machine.name} is paused: none of its processes runs", seen,
                        f"{provider}{machine.name}", weight=0)  # fmt: skip
        elif machine.state == ABSENT and not everywhere:
            yield Cause("machine-missing", LAYER, f"{machine.name} does not exist", seen,
                        snapshot.stackbook("run", "--to 03"), weight=0)  # fmt: skip
        elif machine.state not in (RUNNING, ABSENT):
            yield Cause("machine-stopped", LAYER, f"{machine.name} is not running", seen,
                        snapshot.stackbook("start"), weight=0)  # fmt: skip
        elif machine.state == RUNNING and machine["clock"].problem:
            yield Cause("machine-silent", LAYER, f"{machine.name} does not answer", (machine["clock"].problem,),
                        snapshot.stackbook("shell", machine.name), weight=1)  # fmt: skip


def disks(snapshot: Snapshot) -> Iterator[Cause]:
    """No file system is full, by bytes or by inodes."""
    for machine in snapshot.up:
        for probe, what in (("disks", "space"), ("inodes", "inodes")):
            for path, line in full_disks(machine.text(probe)):
                yield Cause("disk-full", LAYER, f"{path} on {machine.name} has no {what} left", (f"df: {line}",),
                            snapshot.on(machine.name, f"du -xk {path} | sort -n | tail"), weight=2)  # fmt: skip


def memory(snapshot: Snapshot) -> Iterator[Cause]:
    """Some memory is left; machines that are containers share this host's memory."""
    for machine in snapshot.up:
        with suppress(ValueError, KeyError, ZeroDivisionError):
            found = facts.parse_meminfo(machine.text("memory"))
            left = found["MemAvailable"] / found["MemTotal"]
            if left < MEMORY_LEFT:
                seen = f"MemAvailable {found['MemAvailable'] >> 20} MiB of {found['MemTotal'] >> 20} MiB"
                yield Cause("memory-low", LAYER, f"{machine.name} has no memory left", (seen,),
                            snapshot.on(machine.name, "ps -eo rss,comm --sort -rss | head"), weight=3)  # fmt: skip


def clock(snapshot: Snapshot) -> Iterator[Cause]:
    """The clocks agree: certificates and leases depend on them."""
    for machine in snapshot.up:
        with suppress(ValueError):
            off = float(machine.text("clock")) - machine["clock"].at
            if abs(off) > CLOCK_OFF:
                way = "ahead of" if off > 0 else "behind"
                yield Cause("clock-off", LAYER, f"the clock of {machine.name} is {abs(off):.0f} s {way} this host's",
                            (f"date on {machine.name}: {machine.text('clock').strip()}",
                             f"this host at the same time: {machine['clock'].at:.0f}"),
                            snapshot.on(machine.name, "timedatectl set-ntp true"), weight=4)  # fmt: skip


def names(snapshot: Snapshot) -> Iterator[Cause]:
    """/etc/hosts has each node's real address."""
    wanted = {node.name: node.address for node in snapshot.profile.nodes}
    for machine in snapshot.up:
        known = facts.parse_hosts(machine.text("hosts"))
        for name, address in wanted.items():
            found = known.get(name, address)
            if found != address and not found.startswith("127."):
                yield Cause("hosts-entry", LAYER, f"/etc/hosts on {machine.name} has a wrong address for {name}",
                            (f"{name} → {found}", f"the profile says {address}"),
                            snapshot.stackbook("run", "--only 01 --again"), weight=5)  # fmt: skip


RULES = (state, disks, memory, clock, names)
