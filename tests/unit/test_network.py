"""Name servers and host tables: what is read, and what is left alone on machines that are not made here."""

from __future__ import annotations

import pytest
from fakes import FakeHost
from stackbook.config.profile import Profile
from stackbook.lessons.machines import addressing
from stackbook.machines.operations import pending


@pytest.mark.parametrize(
    ("resolvectl", "file", "wanted"),
    [
        ("Global: 192.168.98.2\nLink 2 (eth0):\n", "nameserver 127.0.0.53\n", "192.168.98.2"),
        ("Global:\nLink 2 (eth0): 10.0.2.3 10.0.2.4\n", "nameserver 127.0.0.53\n", "10.0.2.3 10.0.2.4"),
        ("Global:\nLink 2 (eth0):\n", "# nothing\nnameserver 127.0.0.53\n", ""),
        ((127, "", "not found"), "search lan\nnameserver 10.0.2.3\nnameserver\n", "10.0.2.3"),
    ],
    ids=["resolved", "of the link", "itself only", "no resolved"],
)
def test_name_servers(resolvectl: str | tuple[int, str, str], file: str, wanted: str) -> None:
    host = FakeHost({"resolvectl dns": resolvectl}, files={"/etc/resolv.conf": file})
    assert addressing.name_servers(host) == wanted


def test_the_name_servers_of_other_peoples_machines_are_left_alone() -> None:
    host = FakeHost(files={"/etc/hosts": "127.0.0.1 localhost\n"})
    profile = Profile(target="ssh")
    assert [str(c) for c in pending(host, addressing.names(profile))] == ["sh -c cat > /etc/hosts"]
