"""What a reset takes away of podman's own, told by the commands that it runs on a host that answers as one does."""

from __future__ import annotations

import pytest
from stackbook import reset
from stackbook.results import Result

SAVED = {
    "filter": "*filter\n:FORWARD ACCEPT [0:0]\n:NETAVARK_FORWARD - [0:0]\n"
    '-A FORWARD -m comment --comment "netavark firewall plugin rules" -j NETAVARK_FORWARD\nCOMMIT\n',
    "nat": "*nat\n:NETAVARK-HOSTPORT-MASQ - [0:0]\n:MINE - [0:0]\n-A MINE -j ACCEPT\nCOMMIT\n",
}
GROUP = "/sys/fs/cgroup/memory/libpod_parent"
BEFORE: dict[str, list[str]] = {"sysctls": [], "rules": [], "cgroups": []}


class Answering:
    """A host with podman's chains and a control group of its own; it notes what it is asked to change."""

    def __init__(self, containers: str = "") -> None:
        self.containers, self.changes = containers, []

    def run(self, argv, **_):
        out = ""
        if argv[0] == "podman":
            out = self.containers
        elif argv[0] == "iptables-save":
            out = SAVED.get(argv[2], "")
        elif argv[0] == "find" and "-maxdepth" in argv:
            out = f"{GROUP}\n"
        else:
            self.changes.append(list(argv))
        return Result(tuple(argv), 0, out, "", 0.0)


def test_podmans_own_chains_and_control_groups_go_where_there_were_none():
    host = Answering()
    reset.restore(BEFORE, host)
    assert host.changes == [
        ["find", GROUP, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
        ["iptables", "-t", "filter", "-D", "FORWARD", "-m", "comment", "--comment", "netavark firewall plugin rules",
         "-j", "NETAVARK_FORWARD"],
        ["iptables", "-t", "filter", "-X", "NETAVARK_FORWARD"],
        ["iptables", "-t", "nat", "-X", "NETAVARK-HOSTPORT-MASQ"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "containers", "gone"),
    [
        (BEFORE, "1f2e3d\n", []),
        (BEFORE | {"rules": ["nat :NETAVARK-HOSTPORT-MASQ -"]}, "", ["find"]),
        (BEFORE | {"cgroups": [GROUP]}, "", ["iptables"]),
    ],
    ids=["somebody else's containers", "chains from before", "a control group from before"],
)
def test_what_others_use_or_was_there_stays(before, containers, gone):
    host = Answering(containers)
    reset.restore(before, host)
    assert sorted({change[0] for change in host.changes}) == gone
