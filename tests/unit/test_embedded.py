"""The embedded provider's commands, with a strict fake of this host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeHost
from stackbook.config.profile import Node, Profile
from stackbook.core.errors import CommandFailed, HostUnfit, InputError, StackbookError
from stackbook.core.results import Result
from stackbook.machines import transports
from stackbook.machines.providers import podman
from stackbook.machines.providers.podman import GONE, Embedded

CGROUPS = "stat -f -c %T /sys/fs/cgroup"
V1 = "tmpfs"
V2 = "cgroup2fs"
NODE = "podman --cgroup-manager=cgroupfs --runtime=runc"
MINE = "--filter label=stackbook.lab=stackbook --format json"
PS = f"{NODE} ps -a --no-trunc {MINE}"


def entry(state: str) -> dict[str, object]:
    return {"Names": ["stackbook-k8s-master"], "State": state, "Pid": 77, "Id": "c0ffee"}


def provider(hierarchy: str = V1, **answers: str | tuple[int, str, str]) -> Embedded:
    return Embedded(Profile(), FakeHost({CGROUPS: hierarchy, **answers}))


def test_cgroup_v1_asks_for_runc_and_cgroupfs() -> None:
    assert provider().podman == ("podman", "--cgroup-manager=cgroupfs", "--runtime=runc")


def test_cgroup_v2_takes_podmans_own_runtime() -> None:
    assert "--runtime=runc" not in provider(V2).podman


def test_a_podman_that_does_not_work_is_named() -> None:
    failed = (125, "", "Error: cannot open store\n")
    broken = provider(**{PS: failed, "podman info --format json": failed})
    with pytest.raises(HostUnfit, match="cannot open store"):
        broken.containers()


def test_a_podman_that_works_is_not_blamed() -> None:
    with pytest.raises(CommandFailed, match="no such label"):
        provider(**{PS: (125, "", "Error: no such label\n"), "podman info --format json": "{}"}).containers()


def test_a_machine_has_the_guides_address_and_a_mac_of_its_own(home: Path) -> None:
    flags = provider().run_flags(Profile().nodes[1])
    text = " ".join(flags)
    assert "--ip 192.168.98.4" in text
    assert "--mac-address 02:98:c0:a8:62:04" in text
    assert f"--label stackbook.lab=stackbook --label stackbook.state={home}/state/stackbook" in text
    assert "--systemd=false --cgroupns=private" in text
    assert f"-v {home}/cache:/opt/stackbook:ro" in text
    assert "--http-proxy=false" in text


def test_eight_machines_have_eight_macs(home: Path) -> None:
    nodes = tuple(Node(name=f"n{i}", address=f"192.168.98.{i + 3}") for i in range(8))
    lab = Embedded(Profile(nodes=nodes), FakeHost({CGROUPS: V1}))
    assert len({lab.mac(n) for n in nodes}) == 8
    own = Node(name="x", address="192.168.98.9", mac="02:00:00:00:00:09")
    assert lab.mac(own) == "02:00:00:00:00:09"


MOUNTED = 'inspect --type container --format {{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
MASTER = "stackbook-k8s-master"


def strangers() -> list[dict[str, object]]:
    """Volumes of others, with names like the lab's."""
    return [{"Name": name, "Labels": {}} for name in ("stackbook-somebody-kubelet", "stackbook-two-n1-kubelet", "mine")]


def test_delete_touches_nothing_without_the_labs_label(home: Path) -> None:
    """A lab from before volumes had labels: its own are those that its containers mount, whatever others are called."""
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: json.dumps([entry("exited")]),
            f"{NODE} {MOUNTED} {MASTER}": f"{MASTER}-containerd {MASTER}-kubelet data\n",
            f"{NODE} rm -f -v -t 0 {MASTER}": "",
            f"{NODE} volume ls {MINE}": json.dumps([{"Name": "stackbook-clone-a-kubelet"}]),
            f"{NODE} volume rm {MASTER}-containerd": "",
            f"{NODE} volume rm {MASTER}-kubelet": "",
            f"{NODE} volume rm stackbook-clone-a-kubelet": "",
            f"{NODE} network ls {MINE}": json.dumps([{"name": "stackbook-net"}]),
            f"{NODE} network rm stackbook-net": "",
            "iptables -w 20 -S FORWARD": "-P FORWARD ACCEPT\n",
        }
    )
    assert Embedded(Profile(), host).delete(say=lambda text: None) == 5
    inspected = next(i for i, c in enumerate(host.ran) if "inspect" in c)
    assert inspected < next(i for i, c in enumerate(host.ran) if " rm -f" in c), "afterwards nothing can be told"
    assert not [c for c in host.ran if "volume rm -f" in c or "network rm -f" in c], "-f takes others' containers along"


ASKED = "ip -j address show type bridge"
ATTACHED = "ip -j link show master podman7"
REMOVED = "ip link delete podman7 type bridge"


def bridge(*addresses: str, name: str = "podman7") -> str:
    found = [{"family": "inet", "local": address} for address in addresses]
    return json.dumps([{"ifname": name, "addr_info": found}])


@pytest.mark.parametrize(
    ("there", "attached", "removed"),
    [
        ("", "", False),
        (bridge("192.168.98.2"), "", True),
        (bridge(), "[]", True),
        (bridge("10.1.2.3"), "", False),
        (bridge("192.168.98.2", "10.1.2.3"), "", False),
        (bridge("192.168.98.2", name="docker0"), "", False),
        (bridge("192.168.98.2"), json.dumps([{"ifname": "veth0"}]), False),
    ],
)
def test_a_bridge_that_podman_left_goes_if_it_is_the_labs(there: str, attached: str, removed: bool, home: Path) -> None:
    """netavark failed half-way: the network can be removed, and its bridge stays."""
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: "[]",
            f"{NODE} volume ls {MINE}": "[]",
            f"{NODE} network ls {MINE}": json.dumps([{"name": "stackbook-net", "network_interface": "podman7"}]),
            f"{NODE} network rm stackbook-net": "",
            "iptables -w 20 -S FORWARD": "-P FORWARD ACCEPT\n",
            ASKED: there,
            ATTACHED: attached,
            REMOVED: "",
        }
    )
    Embedded(Profile(), host).delete(say=lambda text: None)
    assert (REMOVED in host.ran) == removed


def test_a_volume_that_somebody_uses_stays_and_is_an_error(home: Path) -> None:
    volume, busy = "stackbook-k8s-master-kubelet", (2, "", "Error: volume is being used by: 1f2e\n")
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: "[]",
            f"{NODE} volume ls {MINE}": json.dumps([{"Name": volume}]),
            f"{NODE} volume rm {volume}": busy,
            f"{NODE} volume ls --format {{{{.Name}}}}": f"{volume}\n",
            "podman info --format json": "{}",
        }
    )
    with pytest.raises(CommandFailed, match="is being used by"):
        Embedded(Profile(), host).delete(say=lambda text: None)


class _SlowToEnd(FakeHost):
    """podman gives up 5 s after SIGKILL, `times` times: the processes of a machine that writes much still exist."""

    times = 2

    def run(self, argv: Sequence[str], **more: Any) -> Result:
        if "rm" in argv and "-f" in argv and self.times:
            self.times -= 1
            self.answers[" ".join(argv)] = (
                125,
                "",
                "Error: it could not be stopped: given PIDs did not die within timeout\n",
            )
        elif "rm" in argv:
            self.answers[" ".join(argv)] = ""
        return super().run(argv, **more)


def removing(host: FakeHost) -> int:
    host.answers |= {CGROUPS: V1, PS: json.dumps([entry("exited")]), f"{NODE} {MOUNTED} {MASTER}": ""}
    host.answers[f"{NODE} volume ls {MINE}"] = "[]"
    return Embedded(Profile(), host).remove(say=lambda text: None)


def test_a_machine_whose_processes_end_later_than_podman_waits_is_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr("stackbook.core.waiting.pause", paused.append)
    host = _SlowToEnd()
    assert removing(host) == 1
    assert len([c for c in host.ran if " rm -f" in c]) == 3
    assert paused == [1, 1]


def test_a_container_that_cannot_be_removed_is_an_error_at_once(home: Path) -> None:
    refused = (125, "", "Error: cannot remove container: device or resource busy\n")
    host = FakeHost({f"{NODE} rm -f -v -t 0 {MASTER}": refused})
    with pytest.raises(CommandFailed, match="device or resource busy"):
        removing(host)
    assert len([c for c in host.ran if " rm -f" in c]) == 1


def test_copies_take_only_their_own_along(home: Path) -> None:
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: json.dumps([entry("running") | {"Pid": 0}, {**entry("exited"), "Names": ["stackbook-clone-a"]}]),
            f"{NODE} {MOUNTED} stackbook-clone-a": "stackbook-clone-a-kubelet\n",
            f"{NODE} volume ls {MINE}": json.dumps(
                [{"Name": f"{MASTER}-kubelet"}, {"Name": "stackbook-clone-a-kubelet"}]
            ),
            f"{NODE} rm -f -v -t 0 stackbook-clone-a": "",
            f"{NODE} volume rm stackbook-clone-a-kubelet": "",
        }
    )
    copies = Profile(nodes=(Node(name="clone-a", address="192.168.98.200"),))
    assert Embedded(copies, host).remove_machines(say=lambda text: None) == 1


def test_volumes_are_made_with_the_label_before_their_machine(home: Path) -> None:
    host = FakeHost(
        {
            CGROUPS: V1,
            f"{NODE} volume ls {MINE}": json.dumps([{"Name": f"{MASTER}-kubelet"}]),
            f"{NODE} volume create --label stackbook.lab=stackbook --label stackbook.state={home}/state/stackbook "
            f"{MASTER}-containerd": "",
        }
    )
    Embedded(Profile(), host)._ensure_volumes([MASTER], [])
    assert host.ran[-1].endswith(f"{MASTER}-containerd")


def everything(containers: list[object], volumes: list[object], networks: list[object]) -> dict[str, str]:
    listed = {"ps -a": containers, "volume ls": volumes, "network ls": networks}
    return {CGROUPS: V1, **{f"{NODE} {words} --format json": json.dumps(found) for words, found in listed.items()}}


OURS = {"stackbook.lab": "stackbook"}
OTHERS = {"stackbook.lab": "stackbook-two"}
OF_ANOTHER_USER = {"stackbook.lab": "stackbook", "stackbook.state": "/home/mary/.local/state/stackbook/stackbook"}


@pytest.mark.parametrize(
    ("containers", "volumes", "networks", "said"),
    [
        ([{"Names": [MASTER], "Labels": None}], [], [], f"container '{MASTER}'"),
        ([{"Names": [MASTER], "Labels": OTHERS}], [], [], f"container '{MASTER}'"),
        ([{"Names": [MASTER], "Labels": OF_ANOTHER_USER}], [], [], f"container '{MASTER}'"),
        ([], [], [{"name": "stackbook-net", "labels": OF_ANOTHER_USER}], "network 'stackbook-net'"),
        ([], [{"Name": f"{MASTER}-kubelet", "Labels": {}}], [], f"volume '{MASTER}-kubelet'"),
        ([], [], [{"name": "stackbook-net", "labels": {}}], "network 'stackbook-net'"),
    ],
)
def test_a_name_that_somebody_else_has_is_refused_and_nothing_is_changed(
    containers: list[object], volumes: list[object], networks: list[object], said: str
) -> None:
    host = FakeHost(everything(containers, volumes, networks))
    with pytest.raises(
        InputError, match=f"the {said} exists already and does not belong to this lab .* — give the lab another name"
    ):
        Embedded(Profile(), host).provision(say=lambda text: None)
    assert all(" ls " in c or " ps " in c or c == CGROUPS for c in host.ran)


def test_another_users_lab_of_the_same_name_is_left_alone(home: Path) -> None:
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: json.dumps([{**entry("running"), "Labels": OF_ANOTHER_USER}]),
            f"{NODE} volume ls {MINE}": json.dumps([{"Name": f"{MASTER}-kubelet", "Labels": OF_ANOTHER_USER}]),
            f"{NODE} network ls {MINE}": json.dumps([{"name": "stackbook-net", "labels": OF_ANOTHER_USER}]),
            "iptables -w 20 -S FORWARD": '-A FORWARD -i podman1 -o podman1 -m comment --comment "stackbook.lab=stackbook/0" -j ACCEPT\n',
        }
    )
    assert Embedded(Profile(), host).delete(say=lambda text: None) == 0
    assert not [c for c in host.ran if " rm " in c]


def test_names_that_the_lab_has_itself_are_not_refused() -> None:
    """With volumes that have no label, as a lab from before has them, and strangers beside it."""
    host = FakeHost(
        everything(
            [{"Names": [MASTER], "Labels": OURS}, {"Names": ["stackbook-else"], "Labels": {}}],
            [{"Name": f"{MASTER}-kubelet", "Labels": {}}, *strangers()],
            [{"name": "stackbook-net", "labels": OURS}, {"name": "stackbook-two"}, {"name": "podman"}],
        )
        | {f"{NODE} {MOUNTED} {MASTER}": f"{MASTER}-kubelet \n"}
    )
    Embedded(Profile(), host).demand_names()


def processes(folder: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc whose process 77 is one of this container."""
    (folder / "77").mkdir(parents=True, exist_ok=True)
    (folder / "77" / "cgroup").write_text(f"1:cpu:/libpod_parent/libpod-{container}\n")
    monkeypatch.setattr(transports, "_PROC", folder)
    return folder


@pytest.mark.parametrize("state", ["running", "stopping", "paused"])
def test_a_container_without_its_process_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    lab = provider(**{PS: json.dumps([entry(state)])})
    processes(tmp_path, "c0ffee", monkeypatch)
    assert lab.containers() == {"stackbook-k8s-master": state}
    processes(tmp_path, "another", monkeypatch)
    assert lab.containers() == {"stackbook-k8s-master": GONE}
    assert lab.machines() == {}
    ended = provider(**{PS: json.dumps([entry("exited")])})
    assert ended.containers() == {"stackbook-k8s-master": "exited"}


def test_podman_is_told_of_an_end_that_nobody_wrote_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(tmp_path / "proc", "another", monkeypatch)
    exits = tmp_path / "exits"
    exits.mkdir()
    monkeypatch.setattr(podman, "EXITS", exits)
    name = "stackbook-k8s-master"
    answers = {
        CGROUPS: V1,
        PS: json.dumps([entry("exited")]),
        f"{NODE} inspect --type container --format {{{{.Id}}}} {name}": "c0ffee\n",
        f"{NODE} container cleanup {name}": "",
        f"{NODE} start {name}": "",
    }
    said: list[str] = []
    host = FakeHost(answers)
    assert Embedded(Profile(), host)._start(Profile().nodes[0], GONE, "", said.append) == 1
    assert (exits / "c0ffee").read_text() == "137"
    assert said == [f"starting k8s-master again (it was {GONE})"]
    assert host.ran[-1] == f"{NODE} start {name}"


def test_an_end_that_podman_does_not_take_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(tmp_path / "proc", "another", monkeypatch)
    monkeypatch.setattr(podman, "EXITS", tmp_path / "none")
    name = "stackbook-k8s-master"
    host = FakeHost(
        {
            CGROUPS: V1,
            PS: json.dumps([entry("running")]),
            f"{NODE} inspect --type container --format {{{{.Id}}}} {name}": "c0ffee\n",
            f"{NODE} container cleanup {name}": (125, "", "Error: is running or paused, refusing to clean up\n"),
        }
    )
    with pytest.raises(StackbookError, match="refusing to clean up — run `stackbook reset`"):
        Embedded(Profile(), host)._start(Profile().nodes[0], GONE, "", lambda text: None)
