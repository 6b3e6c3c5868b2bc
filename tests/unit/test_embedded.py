"""The embedded provider's commands, with a strict fake of this host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeHost
from stackbook import hosts
from stackbook.errors import HostUnfit, StackbookError
from stackbook.parameters import Node, Profile
from stackbook.providers import embedded
from stackbook.providers.embedded import GONE, Embedded

INFO = "podman info --format json"
V1 = json.dumps({"host": {"cgroupVersion": "v1"}})
V2 = json.dumps({"host": {"cgroupVersion": "v2"}})


def entry(state: str) -> dict[str, object]:
    return {"Names": ["stackbook-k8s-master"], "State": state, "Pid": 77, "Id": "c0ffee"}


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
            f"{podman} ps -a {label} --no-trunc": json.dumps([entry("exited")]),
            f"{podman} rm -f -v -t 0 stackbook-k8s-master": "",
            f"{podman} volume ls --format {{{{.Name}}}}": "stackbook-k8s-master-kubelet\nstackbookish-x-kubelet\nmine\n",
            f"{podman} volume rm -f stackbook-k8s-master-kubelet": "",
            f"{podman} network ls {label}": json.dumps([{"name": "stackbook-net"}]),
            f"{podman} network rm -f stackbook-net": "",
        }
    )
    assert Embedded(Profile(), host).delete(say=lambda text: None) == 3
    assert not any("mine" in c or "stackbookish" in c for c in host.ran)


NODE = "podman --cgroup-manager=cgroupfs --runtime=runc"
PS = f"{NODE} ps -a --filter label=stackbook.lab=stackbook --format json --no-trunc"


def processes(folder: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc whose process 77 is one of this container."""
    (folder / "77").mkdir(parents=True, exist_ok=True)
    (folder / "77" / "cgroup").write_text(f"1:cpu:/libpod_parent/libpod-{container}\n")
    monkeypatch.setattr(hosts, "_PROC", folder)
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
    monkeypatch.setattr(embedded, "EXITS", exits)
    name = "stackbook-k8s-master"
    answers = {
        INFO: V1,
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
    monkeypatch.setattr(embedded, "EXITS", tmp_path / "none")
    name = "stackbook-k8s-master"
    host = FakeHost(
        {
            INFO: V1,
            PS: json.dumps([entry("running")]),
            f"{NODE} inspect --type container --format {{{{.Id}}}} {name}": "c0ffee\n",
            f"{NODE} container cleanup {name}": (125, "", "Error: is running or paused, refusing to clean up\n"),
        }
    )
    with pytest.raises(StackbookError, match="refusing to clean up — stackbook reset"):
        Embedded(Profile(), host)._start(Profile().nodes[0], GONE, "", lambda text: None)
