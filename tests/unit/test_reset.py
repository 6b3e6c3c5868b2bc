"""What a reset takes away of podman's own, told by the commands that it runs on a host that answers as one does."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import host_state, reset
from stackbook.app.host_changes import Marks, Others, split
from stackbook.app.supervision import only_run
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import CommandFailed, InputError, TransportError
from stackbook.core.results import Result

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


def others(**values: Any) -> Others:
    nothing = {"known": True, "running": False, "lab": False, "places": frozenset(), "networks": frozenset(),
               "bridges": frozenset(), "links": {}, "namespaces": frozenset()}  # fmt: skip
    return Others(**nothing | values)


def test_podmans_own_chains_and_control_groups_go_where_there_were_none():
    host = Answering()
    reset.restore(BEFORE, host, others(), MARKS)
    assert host.changes == [
        ["find", GROUP, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
        ["iptables", "-w", "20", "-t", "filter", "-D", "FORWARD", "-m", "comment", "--comment", "netavark firewall plugin rules",
         "-j", "NETAVARK_FORWARD"],
        ["iptables", "-w", "20", "-t", "filter", "-X", "NETAVARK_FORWARD"],
        ["iptables", "-w", "20", "-t", "nat", "-X", "NETAVARK-HOSTPORT-MASQ"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "there", "gone"),
    [
        (BEFORE, others(running=True), []),
        (BEFORE, others(known=False), []),
        (BEFORE | {"rules": ["nat :NETAVARK-HOSTPORT-MASQ -"]}, others(), ["find"]),
        (BEFORE | {"rules": "iptables-save could not be started"}, others(), ["find"]),
        (BEFORE | {"cgroups": [GROUP]}, others(), ["iptables"]),
    ],
    ids=["somebody else's containers", "podman does not say", "chains from before", "not known", "a group from before"],
)
def test_what_others_use_or_was_there_stays(before, there, gone):
    host = Answering()
    reset.restore(before, host, there, MARKS)
    assert sorted({change[0] for change in host.changes}) == gone


@pytest.mark.parametrize(
    ("subnet", "gone"), [("192.168.86.0/24", 0), ("192.168.98.0/24", 3)], ids=["another", "the lab's"]
)
def test_chains_stay_where_a_podman_that_is_not_listed_has_a_network(subnet, gone, monkeypatch):
    """Such as that of another release in a chroot, or one with `--root`: its containers share this host's network."""
    rule = f"-A NETAVARK_FORWARD -d {subnet} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    monkeypatch.setitem(SAVED, "filter", SAVED["filter"].replace("COMMIT", f"{rule}COMMIT"))
    host = Answering()
    reset.restore(BEFORE, host, others(), MARKS)
    assert sum("filter" in change for change in host.changes) == gone
    assert any("nat" in change for change in host.changes) == bool(gone)


SYSCTLS = ["net.ipv4.ip_forward = 0", "vm.overcommit_memory = 0"]
BRIDGE = {"docker0": {"kind": "bridge"}}


@pytest.mark.parametrize(
    ("there", "put_back"),
    [
        (others(), SYSCTLS),
        (others(networks=frozenset({"podman"})), SYSCTLS),
        (others(running=True), SYSCTLS[1:]),
        (others(networks=frozenset({"podman", "new"})), SYSCTLS[1:]),
        (others(links=BRIDGE), SYSCTLS[1:]),
        (others(running=True, lab=True), []),
    ],
    ids=["nobody", "podman's own network", "a container", "a new network", "Docker came", "another lab"],
)
def test_kernel_parameters_that_others_use_stay(there, put_back):
    before = BEFORE | {"sysctls": SYSCTLS, "interfaces": ["lo"], "networks": ["podman"]}
    host = Answering()
    reset.restore(before | {"cgroups": [GROUP], "rules": ["NETAVARK"]}, host, there, MARKS)
    assert [change[2] for change in host.changes if change[1] == "-w"] == [
        line.replace(" = ", "=") for line in put_back
    ]
    now = {**before, "sysctls": [line.replace("= 0", "= 1") for line in SYSCTLS]}
    mine, theirs = split(before, now, MARKS, there)
    kept = len(SYSCTLS) - len(put_back)
    assert [len(d.added) for d in mine + theirs] == [n for n in (len(put_back), kept) if n]
    assert bool(theirs) == bool(kept)


# whose it is

MARKS = Marks(
    ipaddress.IPv4Network("192.168.98.0/24"),
    frozenset({"podman1"}),
    {"containers": frozenset({"lab-n1"}), "volumes": frozenset({"lab-n1-kubelet"}), "networks": frozenset({"lab-net"})},
    {},
    (Path("/home/u/.cache/stackbook"),),
)
LINKS = {
    "sbleft": {"kind": "dummy"},
    "veth0": {"master": "podman1", "kind": "veth"},
    "veth7": {"master": "docker0", "kind": "veth"},
    "veth8": {"kind": "veth"},
    "br9": {"kind": "bridge", "addr_info": [{"local": "192.168.98.2"}]},
    "podman5": {"kind": "bridge"},
    "podman6": {"kind": "bridge"},
}
THEIR_ID, LOST_ID = "c0ffee00" * 8, "decaf000" * 8
RUNNING = others(
    running=True,
    links=LINKS,
    bridges=frozenset({"podman6"}),
    places=frozenset({"netns-11111111-a", THEIR_ID}),
    namespaces=frozenset({"blue"}),
)
NOBODY = others(links=LINKS, bridges=frozenset({"podman6"}))
STORAGE = "/var/lib/containers/storage/overlay-containers"


@pytest.mark.parametrize(
    ("kind", "line", "with_others", "alone"),
    [
        ("containers", "lab-n1", True, True),
        ("containers", "lab-somebody", False, False),
        ("volumes", "lab-n1-kubelet", True, True),
        ("volumes", "lab-somebody-kubelet", False, False),
        ("networks", "lab-net", True, True),
        ("networks", "lab-two", False, False),
        ("interfaces", "sbleft", False, False),
        ("interfaces", "podman1", True, True),
        ("interfaces", "veth0", True, True),
        ("interfaces", "veth7", False, False),
        ("interfaces", "veth8", True, True),
        ("interfaces", "br9", True, True),
        ("interfaces", "podman5", True, True),
        ("interfaces", "podman6", False, False),
        ("routes", "192.168.98.0/24  podman1", True, True),
        ("routes", "192.168.98.128/25 10.0.0.1 eth0", True, True),
        ("routes", "default 10.0.0.1 wlan0", False, False),
        ("routes", "192.168.97.0/24  podman11", False, False),
        ("namespaces", "blue", False, False),
        ("namespaces", "netns-11111111-a", False, True),
        ("namespaces", "netns-22222222-b", True, True),
        ("mounts", "/media/usb vfat", False, False),
        ("mounts", "/home/u/.cache/stackbook/tmp/x/proc proc", True, True),
        ("mounts", "/run/netns/netns-11111111-a nsfs", False, True),
        ("mounts", f"{STORAGE}/{THEIR_ID}/userdata/shm tmpfs", False, True),
        ("mounts", f"{STORAGE}/{LOST_ID}/userdata/shm tmpfs", True, True),
        ("mounts", "/var/lib/containers/storage/overlay ext4", False, True),
        ("mounts", "/run/netns tmpfs", False, True),
        ("rules", "filter -A STRANGER -j RETURN", False, False),
        ("rules", "filter -A FORWARD -s 0.0.0.0/0 -j ACCEPT", False, False),
        ("rules", "filter -A NETAVARK_FORWARD -d 192.168.98.0/24 -j ACCEPT", True, True),
        ("rules", "filter -A FORWARD -i podman1 -j ACCEPT", True, True),
        ("rules", "filter -A FORWARD -i podman12 -j ACCEPT", False, False),
        ("rules", "nat :NETAVARK_FORWARD -", False, True),
        ("cgroups", "/sys/fs/cgroup/cpu/libpod_parent", False, True),
    ],
)
def test_only_what_cannot_be_the_labs_is_somebody_elses(kind, line, with_others, alone):
    for there, expected in ((RUNNING, with_others), (NOBODY, alone)):
        mine, theirs = split({kind: []}, {kind: [line]}, MARKS, there)
        assert ([d.added for d in mine], [d.added for d in theirs]) == (
            ([(line,)], []) if expected else ([], [(line,)])
        )


def test_a_network_chain_is_the_labs_when_a_rule_of_its_subnet_leads_there():
    rules = [
        "nat -A POSTROUTING -s 192.168.98.0/24 -j NETAVARK-132DE9E02D3F4",
        "nat :NETAVARK-132DE9E02D3F4 -",
        "nat :NETAVARK-FFFFFFFFFFFFF -",
    ]
    mine, theirs = split({"rules": []}, {"rules": rules}, MARKS, RUNNING)
    assert (mine[0].added, theirs[0].added) == (tuple(rules[:2]), tuple(rules[2:]))


def test_what_others_took_away_meanwhile_is_theirs():
    old = {
        "containers": ["web"],
        "namespaces": ["netns-33333333-c"],
        "interfaces": ["veth9"],
        "rules": ["nat :NETAVARK-A -"],
    }
    mine, theirs = split(old, {kind: [] for kind in old}, MARKS, NOBODY)
    assert mine == [] and len(theirs) == 4


# what cannot be read


@pytest.mark.parametrize("tool", ["podman", "iptables-save"])
@pytest.mark.parametrize("how", ["missing", "failing"])
def test_what_cannot_be_read_does_not_pass_as_unchanged(tool, how):
    class Broken(Answering):
        def run(self, argv, *, check=True, **_):
            if argv[0] != tool:
                return super().run(argv)
            if how == "missing":
                raise TransportError(f"{tool} could not be started: No such file or directory")
            result = Result(tuple(argv), 125, "", "Error: it is broken\n", 0.0)
            if check:
                raise CommandFailed(result)
            return result

        def read(self, path):
            return ""

    whole = host_state.snapshot(Reading())
    broken = host_state.snapshot(Broken())
    kinds = {"podman": ["containers", "volumes", "networks"], "iptables-save": ["rules"]}[tool]
    for pair in ((whole, broken), (broken, whole), (broken, broken)):
        mine, theirs = split(*pair, MARKS, NOBODY)
        assert [d.kind for d in mine] == kinds and theirs == []
        assert all("could not be compared: " in str(d) and "\n" not in str(d) for d in mine)


def test_a_kernel_without_a_table_has_no_rules_in_it():
    class Without(Reading):
        def run(self, argv, **_):
            if argv[:3] == ["iptables-save", "-t", "raw"]:
                return Result(tuple(argv), 1, "", "Cannot initialize: Table does not exist", 0.0)
            return super().run(argv)

    assert isinstance(host_state.snapshot(Without())["rules"], list)


class Reading(Answering):
    def read(self, path):
        return ""


def test_a_reset_refuses_while_a_run_goes_on(home, monkeypatch):
    asked = []
    monkeypatch.setattr(reset, "for_profile", asked.append)
    profile = Profile()
    with only_run(profile.lab), pytest.raises(InputError, match=r"another run uses the lab .* — wait for it"):
        reset.reset(profile)
    assert asked == []


TAKES = "from stackbook.app.supervision import only_run\nwith only_run('stackbook', who='a reset'):\n    print('taken', flush=True)\n"


def test_a_chapter_of_the_run_may_reset(home):
    """Its kernel is a child of the run that holds the lock, or a child of one."""
    with only_run(Profile().lab):
        for command in ([sys.executable, "-c", TAKES], ["sh", "-c", f'{sys.executable} -c "$0"; true', TAKES]):
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            assert done.stdout == "taken\n", done.stderr


def test_a_stranger_of_the_run_may_not(home):
    holder = subprocess.Popen(
        [sys.executable, "-c", TAKES + "    input()\n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"taken\n"
        with pytest.raises(InputError, match="another run uses the lab"), only_run(Profile().lab):
            pass
    finally:
        holder.communicate(b"\n", timeout=20)


def test_a_run_refuses_while_a_reset_goes_on_and_what_others_did_is_said(home, monkeypatch):
    """The whole of it, on a host where a dummy interface came meanwhile, and where podman's control groups stay."""
    profile, said, refused = Profile(), [], []

    class Provider:
        def delete(self, *, say):
            with pytest.raises(InputError, match="stackbook reset"), only_run(profile.lab):
                refused.append(1)

    monkeypatch.setattr(reset, "for_profile", lambda _: Provider())
    monkeypatch.setattr(reset.Marks, "of", classmethod(lambda cls, *_: MARKS))
    monkeypatch.setattr(reset.Others, "look", classmethod(lambda cls, *_: NOBODY))
    monkeypatch.setattr(reset, "restore", lambda *_: None)
    (paths.state(profile.lab) / "before.json").write_text(json.dumps({"host": {"interfaces": [], "cgroups": []}}))
    monkeypatch.setattr(reset, "snapshot", lambda _: {"interfaces": ["sbleft"], "cgroups": [GROUP]})
    assert [str(d) for d in reset.reset(profile, say=said.append)] == [f"cgroups: left over: {GROUP}"]
    assert said == ["changed meanwhile, not by this lab: interfaces: left over: sbleft"]
    assert (paths.states() / profile.lab / "before.json").exists()
    monkeypatch.setattr(reset, "snapshot", lambda _: {"interfaces": ["sbleft"], "cgroups": []})
    assert reset.reset(profile, say=said.append) == []
    assert not (paths.states() / profile.lab).exists() and refused == []


def test_a_lab_beside_others_remembers_the_host_before_the_first(tmp_path: Path) -> None:
    """Each of four labs gave back what it had found: the kernel parameters of the labs beside it, as their kubelets had set them."""
    for lab, time, panic in (("second", "2026-01-01T00:02:00Z", 10), ("first", "2026-01-01T00:01:00Z", 1)):
        (tmp_path / lab).mkdir()
        memory = {"time": time, "host": {"sysctls": [f"kernel.panic = {panic}", "net.ipv4.ip_forward = 0"]}}
        (tmp_path / lab / "before.json").write_text(json.dumps(memory))
    current = ["kernel.panic = 10", "vm.overcommit_memory = 1", "net.ipv4.ip_forward = 1"]
    wanted = ["kernel.panic = 1", "vm.overcommit_memory = 1", "net.ipv4.ip_forward = 1"]
    assert reset.before_all_labs(current, tmp_path) == wanted, (
        "forwarding may have been switched on by somebody else meanwhile"
    )
    assert reset.before_all_labs(current, tmp_path / "nobody") == current
    assert reset.before_all_labs("unread", tmp_path) == "unread"
