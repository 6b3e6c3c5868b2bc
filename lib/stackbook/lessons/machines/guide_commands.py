"""Small trials of the guide's commands on a machine; each undoes its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.each import on_each
from stackbook.machines.operations import comment_swap
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_USER, _GROUP = "sbtrial", "sbdocker"
_FSTAB = """\
UUID=0a3407de-014b-458b-b5c1-848e92a327a3 /     ext4    errors=remount-ro  0       1
/swapfile                                 none            swap    sw              0       0
"""


def newgrp(host: Host) -> dict[str, int]:
    """The exit status of `newgrp` before and after `gpasswd -a`, for a temporary user and group."""
    # newgrp opens a shell; without input, that shell exits at once, and no password can be typed.
    attempt = ["setsid", "--wait", "su", "-s", "/bin/sh", _USER, "-c", f"newgrp {_GROUP}"]
    try:
        _remove_user(host)  # left by a killed trial
        host.run(["useradd", "-M", _USER])
        host.run(["groupadd", _GROUP])
        before = host.run(attempt, check=False, stdin="exit\n", timeout=20).rc
        member = host.run(["gpasswd", "-a", _USER, _GROUP]).rc
        after = host.run(attempt, check=False, stdin="exit 0\n", timeout=20).rc
        groups = host.run(["id", "-nG", _USER]).stdout.split()
    finally:
        _remove_user(host)
    return {
        "newgrp before gpasswd": before,
        "gpasswd -a": member,
        "newgrp after gpasswd": after,
        "the group is among id -nG": 0 if _GROUP in groups else 1,
    }


def _remove_user(host: Host) -> None:
    host.run(["userdel", _USER], check=False)
    host.run(["groupdel", _GROUP], check=False)


def fstab(host: Host) -> dict[str, Any]:
    """An fstab like the guide's after its swap line is commented out, checked with the machine's findmnt."""
    path = "/tmp/stackbook-fstab"
    after = comment_swap(_FSTAB)
    try:
        host.write(path, after)
        # Only errors: the sample's disk does not exist on this machine, which findmnt reports as a warning.
        said = host.run(["findmnt", "--verify", "--tab-file", path], check=False).stdout
    finally:
        host.run(["rm", "-f", path])
    active = [line.split() for line in after.splitlines() if line and not line.startswith("#")]
    parse_errors = next((int(line.split()[0]) for line in said.splitlines() if "parse error" in line), 0)
    return {
        "swap lines left": sum(words[2] == "swap" for words in active),
        "root line kept": any(words[1] == "/" for words in active),
        "parse errors by findmnt --verify": parse_errors,
    }


def cgroup_drivers(lab: Lab) -> list[dict[str, Any]]:
    """Who manages control groups on each machine: containerd's setting, and how many processes share one group (K06)."""
    return list(on_each(lab.machines, _cgroup_driver).values())


def _cgroup_driver(name: str, host: Host) -> dict[str, Any]:
    dump = host.run(["containerd", "config", "dump"], timeout=30).stdout
    return {
        "machine": name,
        "hierarchy": "v2" if facts.CGROUP.read(host) == "cgroup2fs" else "v1",
        "containerd's SystemdCgroup": next(
            (x.split("=")[1].strip() for x in dump.splitlines() if "SystemdCgroup" in x), "not set"
        ),
        "containerd's group": host.run(
            ["systemctl", "show", "-p", "ControlGroup", "--value", "containerd"]
        ).stdout.strip(),
        "processes in one unit's group": processes_in_a_unit(host),
    }


def processes_in_a_unit(host: Host) -> int:
    """How many processes one unit's control group contains: starts a unit with three, and stops it again (K06)."""
    unit = "stackbook-trial"
    try:
        host.run(["systemctl", "stop", unit], check=False)  # left by a killed trial
        host.run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", "sh", "-c", "sleep 20 & sleep 20 & wait"])
        return until(
            lambda: (count := _members(host, unit)) >= 3 and count,
            what="the trial unit to have three processes",
            timeout=10,
            every=0.1,
        )
    finally:
        host.run(["systemctl", "stop", unit], check=False)


def _members(host: Host, unit: str) -> int:
    return sum(line.strip() == f"{unit}.service" for line in host.run(["ps", "-eo", "unit="]).lines)
