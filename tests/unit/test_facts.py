from __future__ import annotations

import json

import pytest
from fakes import FakeHost
from hypothesis import given
from hypothesis import strategies as st
from stackbook.core.errors import CommandFailed
from stackbook.machines import facts

ADDRESS = json.dumps(
    [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "address": "00:00:00:00:00:00",
         "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8},
                       {"family": "inet6", "local": "::1", "prefixlen": 128}]},
        {"ifname": "flannel.1", "flags": ["UP"], "mtu": 1450, "address": "aa:bb:cc:dd:ee:ff",
         "addr_info": []},
        {},
    ]
)  # fmt: skip


def test_interfaces() -> None:
    lo, vxlan = facts.INTERFACES.read(FakeHost({"ip -j address": ADDRESS}))
    assert (lo.name, lo.addresses, lo.mtu, lo.up) == ("lo", ("127.0.0.1/8",), 65536, True)
    assert (vxlan.mac, vxlan.addresses) == ("aa:bb:cc:dd:ee:ff", ())


def test_links_have_their_kind_without_the_details_that_some_hosts_print_broken() -> None:
    host = FakeHost(
        {
            "ip -j address": ADDRESS,
            "ip -j link show type bridge": "",
            "ip -j link show type veth": "[{}]",
            "ip -j link show type vxlan": json.dumps([{}, {"ifname": "flannel.1"}, {"ifname": "came-later"}]),
        }
    )
    assert {name: link["kind"] for name, link in facts.links(host).items()} == {"lo": "", "flannel.1": ""}
    found = facts.links(host, ("vxlan",))
    assert {name: link["kind"] for name, link in found.items()} == {"lo": "", "flannel.1": "vxlan"}
    assert found["lo"]["addr_info"][0]["local"] == "127.0.0.1"
    assert not [command for command in host.ran if " -d" in command]


def test_what_cannot_be_read_is_neither_an_empty_answer_nor_a_failing_command() -> None:
    with pytest.raises(facts.FactUnreadable, match="interfaces of fake"):
        facts.INTERFACES.read(FakeHost({"ip -j address": "no json"}))
    with pytest.raises(CommandFailed):
        facts.INTERFACES.read(FakeHost({"ip -j address": (1, "", "broken")}))
    with pytest.raises(facts.FactUnreadable, match="empty"):
        facts.HOSTNAME.read(FakeHost({"hostname": "\n"}))


def test_a_missing_file_is_a_negative_answer() -> None:
    assert facts.MACHINE_ID.read(FakeHost()) == ""
    assert facts.SUBNET_ENV.read(FakeHost()) == {}
    with pytest.raises(CommandFailed):
        facts.MACHINE_ID.read(FakeHost({"cat /etc/machine-id": (127, "", "cat: not found")}))


def test_swap() -> None:
    text = "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n"
    assert facts.parse_swap(text) == ("/swapfile",)
    assert facts.parse_swap("Filename Type Size\n") == ()


def test_memory_is_in_bytes() -> None:
    assert facts.parse_meminfo("MemTotal:       16 kB\nMemAvailable:   8 kB\n") == {
        "MemTotal": 16384,
        "MemAvailable": 8192,
    }
    with pytest.raises(ValueError, match="MemTotal"):
        facts.parse_meminfo("")


def test_the_first_line_of_a_name_counts_in_the_host_table() -> None:
    assert facts.parse_hosts("127.0.0.1 a b # c\n#x y\n10.0.0.1 b\n") == {"a": "127.0.0.1", "b": "127.0.0.1"}


def test_unit_state() -> None:
    host = FakeHost(
        {"systemctl show -p ActiveState,UnitFileState kubelet": "ActiveState=active\nUnitFileState=enabled\n"}
    )
    assert facts.unit_state("kubelet").read(host) == ("active", "enabled")


@given(st.text())
def test_parsers_answer_or_refuse_but_never_break(text: str) -> None:
    for fact in (facts.INTERFACES, facts.ROUTES, facts.SWAP, facts.MEMORY, facts.OS_RELEASE, facts.HOSTS):
        host = FakeHost({" ".join(fact.argv): text})
        try:
            fact.read(host)
        except facts.FactUnreadable as error:
            assert fact.name in str(error)
