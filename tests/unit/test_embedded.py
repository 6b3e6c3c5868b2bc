"""The embedded provider's commands, with a strict fake of this host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeHost
from stackbook.errors import HostUnfit
from stackbook.parameters import Node, Profile
from stackbook.providers.embedded import Embedded

INFO = "podman info --format json"
V1 = json.dumps({"host": {"cgroupVersion": "v1"}})
V2 = json.dumps({"host": {"cgroupVersion": "v2"}})


def provider(info: str = V1, **answers: str) -> Embedded:
    return Embedded(Profile(), FakeHost({INFO: info, **answers}))


def test_cgroup_v1_asks_for_runc_and_cgroupfs() -> None:
    assert provider().podman == ("podman", "--cgroup-manager=cgroupfs", "--runtime=runc")


def test_cgroup_v2_takes_podmans_own_runtime() -> None:
    assert "--runtime=runc" not in provider(V2).podman


def test_a_podman_that_does_not_work_is_named() -> None:
    broken = Embedded(Profile(), FakeHost({INFO: (125, "", "Error: cannot open store\n")}))
    with pytest.raises(HostUnfit, match="cannot open store"):
        _ = broken.podman


def test_a_machine_has_the_guides_address_and_a_mac_of_its_own(home: Path) -> None:
    flags = provider().run_flags(Profile().nodes[1])
    text = " ".join(flags)
    assert "--ip 192.168.98.4" in text
    assert "--mac-address 02:98:c0:a8:62:04" in text
    assert "--label stackbook.lab=stackbook" in text
    assert "--systemd=false --cgroupns=private" in text
    assert f"-v {home}/cache:/opt/stackbook:ro" in text


def test_eight_machines_have_eight_macs(home: Path) -> None:
    nodes = tuple(Node(name=f"n{i}", address=f"192.168.98.{i + 3}") for i in range(8))
    lab = Embedded(Profile(nodes=nodes), FakeHost({INFO: V1}))
    assert len({lab.mac(n) for n in nodes}) == 8
    own = Node(name="x", address="192.168.98.9", mac="02:00:00:00:00:09")
    assert lab.mac(own) == "02:00:00:00:00:09"


def test_delete_touches_nothing_without_the_labs_label(home: Path) -> None:
    podman = "podman --cgroup-manager=cgroupfs --runtime=runc"
    label = "--filter label=stackbook.lab=stackbook --format json"
    host = FakeHost(
        {
            INFO: V1,
            f"{podman} ps -a {label} --no-trunc": json.dumps([{"Names": ["stackbook-k8s-master"], "State": "running"}]),
            f"{podman} rm -f -v -t 0 stackbook-k8s-master": "",
            f"{podman} volume ls --format {{{{.Name}}}}": "stackbook-k8s-master-kubelet\nstackbookish-x-kubelet\nmine\n",
            f"{podman} volume rm -f stackbook-k8s-master-kubelet": "",
            f"{podman} network ls {label}": json.dumps([{"name": "stackbook-net"}]),
            f"{podman} network rm -f stackbook-net": "",
        }
    )
    assert Embedded(Profile(), host).delete(say=lambda text: None) == 3
    assert not any("mine" in c or "stackbookish" in c for c in host.ran)
