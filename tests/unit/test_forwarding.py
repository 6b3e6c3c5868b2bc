"""A host that drops what is forwarded lets the lab's own bridge through, by one rule that goes with the lab."""

from __future__ import annotations

import doctest

import pytest
from fakes import FakeHost
from stackbook.core.errors import StackbookError
from stackbook.machines.providers import forwarding

ASK = "iptables -w 20 -S FORWARD"
LABEL = "stackbook.lab=stackbook"
ADD = f"iptables -w 20 -I FORWARD 1 -i podman3 -o podman3 -m comment --comment {LABEL} -j ACCEPT"
MINE = f'-A FORWARD -i podman3 -o podman3 -m comment --comment "{LABEL}" -j ACCEPT'
DOCKER = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER"


def test_examples() -> None:
    assert doctest.testmod(forwarding).failed == 0


@pytest.mark.parametrize("chain", ["-P FORWARD ACCEPT\n", "-P FORWARD ACCEPT\n-A FORWARD -j NETAVARK_FORWARD\n", ""])
def test_an_open_host_is_left_as_it_is(chain: str) -> None:
    host = FakeHost({ASK: chain})
    assert forwarding.allow(host, "podman3", LABEL) == 0
    assert host.ran == [ASK]


@pytest.mark.parametrize(
    "chain", ["-P FORWARD DROP\n", f"{DOCKER}\n", "-P FORWARD ACCEPT\n-A FORWARD -j ufw-before-forward\n"]
)
def test_a_host_that_drops_gets_one_rule(chain: str) -> None:
    host = FakeHost({ASK: chain, ADD: ""})
    assert forwarding.allow(host, "podman3", LABEL) == 1
    host = FakeHost({ASK: f"{chain}{MINE}\n"})
    assert forwarding.allow(host, "podman3", LABEL) == 0, "it is there already"


def test_only_the_labs_own_rules_go() -> None:
    others = f'-A FORWARD -i podman4 -o podman4 -m comment --comment "{LABEL}-two" -j ACCEPT'
    gone = f"iptables -w 20 -D FORWARD -i podman3 -o podman3 -m comment --comment {LABEL} -j ACCEPT"
    host = FakeHost({ASK: f"{DOCKER}\n{MINE}\n{others}\n", gone: ""})
    assert forwarding.remove(host, LABEL) == 1
    assert host.ran == [ASK, gone]


def test_a_host_without_iptables_has_no_such_chain() -> None:
    class Bare(FakeHost):
        def run(self, argv, **more):
            raise StackbookError("iptables: not found")

    assert forwarding.allow(Bare(), "podman3", LABEL) == 0
    assert forwarding.remove(Bare(), LABEL) == 0
    assert forwarding.remove(FakeHost({ASK: (4, "", "Permission denied")}), LABEL) == 0
