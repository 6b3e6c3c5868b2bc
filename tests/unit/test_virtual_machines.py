"""Virtual machines: what is the lab's is told by its mark, a process by its files, and a copy by its seed."""

from __future__ import annotations

import base64
import doctest
import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeHost
from stackbook.app import preflight, runner
from stackbook.artifacts import catalogue_loader, virtual_roots
from stackbook.artifacts.package_registries import debian_recipe
from stackbook.config.profile import Profile
from stackbook.core.errors import HostUnfit, InputError, TransportError, WaitTimeout
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.lessons.machines import clones, vm_clones
from stackbook.machines.providers import VirtualMachines, for_profile
from stackbook.machines.transports import LocalHost
from stackbook.machines.virtual import disks, network, qemu
from stackbook.machines.virtual.agent import AgentHost

MARK = "stackbook.lab=stackbook/12345678"
SUBNET = "192.168.98.0/24"


def profile(**overrides: Any) -> Profile:
    return Profile.load("vm", overrides=overrides)


def test_examples() -> None:
    assert doctest.testmod(qemu).failed == 0


# the profile


def test_the_profile_has_the_guides_machines() -> None:
    found = profile()
    assert [node.address for node in found.nodes] == ["192.168.98.3", "192.168.98.4"]
    assert found.creates_machines
    assert isinstance(for_profile(found), VirtualMachines)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("vm", {"gateway": "10.9.9.9"}, "outside the subnet"),
        ("vm", {"subnet": "10.244.0.0/24"}, "overlap"),
        ("vm", {"vm_memory": 512}, "1024"),
        ("vm", {"vm_acceleration": "xen"}, "kvm"),
        ("vm", {"machine_release": "ubuntu-24.04"}, "virtual machines run Debian 12"),
        ("embedded", {"vm_memory": 4096}, "valid only with target: vm"),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Profile.load(name, overrides=overrides)


@pytest.mark.parametrize("name", ["embedded", "vm"])
def test_the_profile_that_a_run_keeps_can_be_read_again(name: str, tmp_path: Path) -> None:
    """It has all parameters; those of virtual machines once made it unreadable for every other target."""
    kept = tmp_path / "profile.yaml"
    kept.write_text(runner._effective(Profile.load(name), {}), encoding="utf-8")
    assert Profile.load(kept) == Profile.load(name)


def test_a_profile_elsewhere_is_not_taken_for_one_of_the_same_name(tmp_path: Path) -> None:
    """A run's last lines once named the kubeconfig of the lab in parameters/ that had the same file name."""
    mine = tmp_path / "vm.yaml"
    mine.write_text("target: vm\nlab: mine\n", encoding="utf-8")
    assert Profile.load(mine).name == str(mine)
    assert Profile.load("vm").name == "vm"


def test_the_host_needs_qemu_and_no_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preflight, "_subnet", lambda host, profile: preflight.Requirement("subnet", "must", True, "", "", "")
    )
    monkeypatch.setattr(
        preflight.shutil, "which", lambda name, path=None: None if "qemu" in name else f"/usr/bin/{name}"
    )
    found = {r.name: r for r in preflight.examine(profile())}
    assert "podman" not in found
    assert found["qemu-system-x86_64"].fix == "apt-get install qemu-system-x86"
    with pytest.raises(HostUnfit, match="qemu"):
        preflight.demand(profile())


def test_memory_is_that_of_the_machines() -> None:
    two, four = (preflight._memory_needed(profile(vm_memory=memory)) for memory in (2048, 4096))
    assert four - two == 2 * 2048 << 20
    assert two > 4 << 30


# the root file system


def test_its_root_has_a_kernel_and_the_machines_packages() -> None:
    catalogue = catalogue_loader.load()
    (virtual,), (contained,) = (catalogue.artifact(name).sources for name in ("vm-rootfs", "machine-rootfs"))
    assert {"linux-image-cloud-amd64", "qemu-guest-agent", "containerd", "openssh-server"} <= set(virtual.packages)  # type: ignore[union-attr]
    assert set(contained.packages) < set(virtual.packages)  # type: ignore[union-attr]
    assert virtual_roots.SCRIPT in debian_recipe(virtual)  # type: ignore[arg-type]
    assert virtual_roots.SCRIPT not in debian_recipe(contained)  # type: ignore[arg-type]
    assert "vm-rootfs" not in catalogue.default_names(), "only target vm needs it"


def test_the_script_of_the_root_is_a_shell_script() -> None:
    assert subprocess.run(["sh", "-n"], input=virtual_roots.SCRIPT, text=True, timeout=10).returncode == 0


# disks


def test_a_seed_has_its_files_and_only_root_reads_it(tmp_path: Path) -> None:
    target = tmp_path / "seed.tar"
    target.write_text("an older one")
    target.chmod(0o644)
    disks.write_seed(target, {"etc/a": ("text\n", 0o644), "etc/key": (Secret("hunter22x"), 0o600)})
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as tar:
        read = {m.name: (m.mode, m.uid, tar.extractfile(m).read().decode()) for m in tar}  # type: ignore[union-attr]
    assert read == {"etc/a": (0o644, 0, "text\n"), "etc/key": (0o600, 0, "hunter22x")}


def test_a_template_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "disk.raw").touch()
    assert disks.make_template(FakeHost(), tmp_path / "none.tar", tmp_path / "template").complete


def test_a_template_is_whole_or_not_there(tmp_path: Path) -> None:
    """An interrupted attempt leaves nothing that the next one would take for a template."""
    (tmp_path / "template.part").mkdir()
    (tmp_path / "template.part" / "disk.raw").touch()
    broken = FakeHost()  # it knows no tar
    with pytest.raises(AssertionError, match="tar"):
        disks.make_template(broken, tmp_path / "root.tar", tmp_path / "template")
    assert not disks.Template(tmp_path / "template").complete
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    template = disks.Template(tmp_path)
    command = f"qemu-img create -q -f qcow2 -b {template.disk} -F raw {tmp_path}/disk.qcow2"
    host = FakeHost({command: ""})
    disks.copy(host, template, tmp_path / "disk.qcow2")
    (tmp_path / "disk.qcow2").touch()
    disks.copy(host, template, tmp_path / "disk.qcow2")
    assert host.ran == [command]


# processes


def machine(folder: Path, **more: Any) -> qemu.VirtualMachine:
    return qemu.VirtualMachine(folder, "lab-one", "02:98:00:00:00:03", "u", 1024, 2, "tcg", **more)


def test_a_machine_without_a_tap_reaches_nobody(tmp_path: Path) -> None:
    template = disks.Template(tmp_path)
    alone, linked = " ".join(machine(tmp_path).flags(template)), " ".join(machine(tmp_path, tap="t0").flags(template))
    assert "user,id=net,restrict=on" in alone
    assert "tap,id=net,ifname=t0,script=no,downscript=no" in linked
    assert "restrict" not in linked


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a machine's QEMU."""
    program = tmp_path / "qemu-system-x86_64"
    program.symlink_to(sys.executable)
    argv = [str(program), "-c", "import time; time.sleep(60)", f"file={tmp_path / 'one' / 'disk.qcow2'},if=virtio"]
    child = subprocess.Popen(argv)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "pid").write_text(f"{child.pid}\n")
    until(
        lambda: b"disk.qcow2" in Path(f"/proc/{child.pid}/cmdline").read_bytes(),
        what="the process to start",
        timeout=10,
        every=0.01,
    )
    yield child
    child.kill()
    child.wait(timeout=10)


def test_a_process_is_told_by_its_disk(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    assert machine(tmp_path / "one").process() == process.pid
    assert qemu.left(tmp_path / "one") == [process.pid]
    assert qemu.left(tmp_path / "other") == []


def test_a_number_that_another_process_has_by_now_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    assert machine(tmp_path).process() == 0
    (tmp_path / "pid").write_text("nonsense")
    assert machine(tmp_path).process() == 0
    machine(tmp_path).stop()  # ends nothing


def test_a_machine_that_does_not_switch_itself_off_is_ended(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie is left
    machine(tmp_path / "one").stop(0.2)
    assert machine(tmp_path / "one").process() == 0


def test_the_last_lines_of_a_console_are_plain(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"\x1b[2J[\x1b[0;32m OK \x1b[0m] one\r\n\r\nKernel panic\r\n")
    assert machine(tmp_path).last_lines() == "[ OK ] one | Kernel panic"
    assert "nothing" in machine(tmp_path / "none").last_lines()


def test_kvm_is_tried_and_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = disks.Template(tmp_path)
    assert qemu.acceleration(FakeHost(), "tcg", template, tmp_path) == "tcg"
    monkeypatch.setattr(qemu, "_kvm", lambda host, template, folder: (False, "a kernel printed nothing"))
    assert qemu.acceleration(FakeHost(), "auto", template, tmp_path) == "tcg"
    with pytest.raises(HostUnfit, match="printed nothing"):
        qemu.acceleration(FakeHost(), "kvm", template, tmp_path)
    monkeypatch.setattr(qemu, "_kvm", lambda host, template, folder: (True, ""))
    assert qemu.acceleration(FakeHost(), "auto", template, tmp_path) == "kvm"


def test_what_was_found_is_kept_and_what_is_wanted_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with `tcg` says nothing about KVM, and must not decide what `auto` takes later."""
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(qemu, "_kvm", lambda host, template, folder: (asked.append("kvm") or True, ""))  # type: ignore[func-returns-value]
    template = disks.Template(tmp_path)
    (tmp_path / "stackbook" / "vm").mkdir(parents=True)
    assert VirtualMachines(profile(vm_acceleration="tcg")).acceleration(template) == "tcg"
    assert [VirtualMachines(profile()).acceleration(template) for _ in range(2)] == ["kvm", "kvm"]
    assert asked == ["kvm"], "the probe takes seconds"


# the network


class Links(FakeHost):
    """A host that records what is changed, with the links and rules that a test gives."""

    def __init__(self, links: list[dict[str, str]], rules: str = "") -> None:
        super().__init__()
        self.links, self.rules = links, rules

    def run(self, argv: Any, **more: Any) -> Any:
        words = list(argv)
        text = " ".join(words)
        if words[:4] == ["ip", "-j", "link", "show"]:
            named = [link for link in self.links if words[4:] in ([], [link["ifname"]])]
            self.answers[text] = json.dumps(named) if named or not words[4:] else (1, "", "does not exist")
        elif words[-1] == "-S" or words[-2:] == ["-S", "FORWARD"]:
            self.answers[text] = self.rules if "nat" in words else ""
        elif "-C" in words:
            self.answers[text] = (1, "", "no such rule")
        else:
            self.answers.setdefault(text, "1" if words[0] == "sysctl" else "")
        return super().run(argv, **more)

    @property
    def changes(self) -> list[str]:
        return [line for line in self.ran if not any(word in line for word in (" show", "-S", "-C", "sysctl -n"))]


def net(host: FakeHost) -> network.Network:
    return network.Network(host, MARK, SUBNET, "192.168.98.2")


def test_all_links_and_rules_carry_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "name_server", lambda: "192.0.2.53")
    host = Links([])
    assert net(host).ensure(2) == 3 + 5
    made = [line.split()[-1] for line in host.changes if " add " in line and " tuntap " in line]
    assert made == ["tap", "tap"]
    marked = [line for line in host.changes if "alias" in line]
    assert len(marked) == 3
    assert all(line.endswith(MARK) for line in marked)
    rules = [line for line in host.changes if line.startswith("iptables")]
    assert len(rules) == 5
    assert all(f"--comment {MARK}" in line for line in rules)
    assert sum("192.0.2.53:53" in line for line in rules) == 2


def test_names_fit_into_a_link() -> None:
    found = net(FakeHost())
    assert all(len(name) <= 15 for name in (found.bridge, found.tap(7)))
    other = network.Network(FakeHost(), "stackbook.lab=two/1", SUBNET, "192.168.98.2")
    assert found.bridge != other.bridge


def test_a_link_of_somebody_else_is_refused() -> None:
    name = net(FakeHost()).bridge
    host = Links([{"ifname": name, "ifalias": "somebody's"}])
    with pytest.raises(InputError, match="does not belong to this lab"):
        net(host).ensure(1)
    assert host.changes == []


def test_only_what_has_the_mark_is_removed() -> None:
    name = net(FakeHost()).bridge
    mine = f'-A POSTROUTING -s {SUBNET} -m comment --comment "{MARK}" -j MASQUERADE'
    rules = f"-P POSTROUTING ACCEPT\n{mine}\n" + mine.replace(MARK, f"{MARK}0") + "\n-A POSTROUTING -j DOCKER\n"
    host = Links(
        [{"ifname": "eth0"}, {"ifname": name, "ifalias": MARK}, {"ifname": f"{name}t0", "ifalias": MARK},
         {"ifname": "docker0", "ifalias": "stackbook.lab=other/1"}], rules)  # fmt: skip
    assert net(host).remove() == 3
    assert host.changes == [
        f"ip link delete {name}t0",
        f"ip link delete {name}",
        f"iptables -w 20 -t nat -D POSTROUTING -s {SUBNET} -m comment --comment {MARK} -j MASQUERADE",
    ]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n"], "192.0.2.1"),
        (["search x\nnameserver ::1\nnameserver 192.0.2.7\n"], "192.0.2.7"),
        (["nameserver 127.0.0.1\nnameserver\n"], ""),
        ([], ""),
    ],
)
def test_the_name_server_can_be_reached_by_others(tmp_path: Path, texts: list[str], found: str) -> None:
    files = [tmp_path / f"resolv.{n}" for n in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    assert network.name_server([*files, tmp_path / "none"]) == found


# the provider


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualMachines:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path))
    return VirtualMachines(profile())


def test_paths_that_are_too_long_for_sockets_are_refused(
    provider: VirtualMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKBOOK_STATE", "/srv/labs")
    provider.demand()
    monkeypatch.setenv("STACKBOOK_STATE", f"/srv/{'a' * 80}")
    with pytest.raises(InputError, match="longer than 107"):
        provider.demand()


def test_each_machine_has_its_own_key_and_only_its_owner_reads_it(provider: VirtualMachines) -> None:
    provider._ensure_keys()
    known = provider.known_hosts.read_text()
    assert [line.split()[0] for line in known.splitlines()] == ["192.168.98.3", "192.168.98.4"]
    keys = [provider.key, *(provider.folder / node.name / "host_key" for node in provider.profile.nodes)]
    assert len({key.read_text() for key in keys}) == 3
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    provider._ensure_keys()
    assert provider.known_hosts.read_text() == known, "a second start keeps them"
    host = provider.host_of(provider.profile.nodes[0])
    assert host.strict
    assert host.known_hosts == provider.known_hosts


def test_a_seed_is_the_machines_own(provider: VirtualMachines, tmp_path: Path) -> None:
    provider._ensure_keys()
    provider.host = LocalHost()
    node = provider.profile.nodes[1]
    (provider.folder / node.name / "disk.qcow2").touch()
    provider._prepare(node, disks.Template(tmp_path))
    with tarfile.open(provider.machine(node).seed) as tar:
        text = tar.extractfile("etc/network/interfaces").read().decode()  # type: ignore[union-attr]
        names = tar.getnames()
    assert "address 192.168.98.4/24\ngateway 192.168.98.2\n" in text
    assert names == ["etc/network/interfaces", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key",
                     "etc/ssh/ssh_host_ed25519_key.pub"]  # fmt: skip


def test_a_machine_that_ends_at_its_start_says_what_its_console_showed(provider: VirtualMachines) -> None:
    node = provider.profile.nodes[0]
    folder = provider.folder / node.name
    folder.mkdir(parents=True)
    (folder / "console.log").write_text("VFS: Unable to mount root fs\n")
    with pytest.raises(Exception, match="has ended: VFS: Unable to mount root fs"):
        provider.wait_booted(node, 5)


def test_a_removed_lab_has_no_files(provider: VirtualMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    provider._ensure_keys()
    provider.network = net(Links([]))  # type: ignore[misc]
    assert provider.delete(say=lambda text: None) == 1
    assert not provider.folder.exists()


# the guest agent


class Agent(threading.Thread):
    """A guest agent as QEMU's, which runs the commands on this host."""

    def __init__(self, path: Path, rest: bytes = b"") -> None:
        super().__init__(daemon=True)
        self.rest = rest
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.done: dict[int, dict[str, Any]] = {}

    def run(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            with channel, channel.makefile("rwb") as stream:
                stream.write(self.rest)
                for line in stream:
                    stream.write(json.dumps(self.answer(json.loads(line))).encode() + b"\n")
                    stream.flush()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked["arguments"]
        if asked["execute"] == "guest-sync":
            return {"return": given["id"]}
        if asked["execute"] == "guest-exec-status":
            return {"return": self.done.get(given["pid"], {"exited": False})}
        if "sleep" in given["arg"]:
            return {"return": {"pid": 99}}
        stdin = base64.b64decode(given.get("input-data", ""))
        ran = subprocess.run([given["path"], *given["arg"]], input=stdin, capture_output=True, timeout=10, check=False)
        self.done[ran.pid if hasattr(ran, "pid") else 7] = {
            "exited": True, "exitcode": ran.returncode, "out-data": base64.b64encode(ran.stdout).decode(),
            "err-data": base64.b64encode(ran.stderr).decode(),
        }  # fmt: skip
        return {"return": {"pid": 7}}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentHost]:
    served = Agent(tmp_path / "agent.sock", rest=b'{"return": 1}\n')  # an answer for somebody who has gone
    served.start()
    yield AgentHost("clone-a", socket_path=tmp_path / "agent.sock")
    served.listener.close()


def test_a_command_goes_through_the_agent(agent: AgentHost) -> None:
    answer = agent.run(["sh", "-c", "cat; echo $WORD >&2; exit 3"], stdin="text", env={"WORD": "hello"}, check=False)
    assert (answer.stdout, answer.stderr, answer.rc, answer.host) == ("text", "hello\n", 3, "clone-a")


def test_a_file_goes_through_the_agent(agent: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(bytes(range(256)))
    agent.put(tmp_path / "here", str(tmp_path / "there" / "file"), mode=0o640)
    assert (tmp_path / "there" / "file").read_bytes() == bytes(range(256))
    assert stat.S_IMODE((tmp_path / "there" / "file").stat().st_mode) == 0o640


def test_a_command_that_does_not_end_is_late(agent: AgentHost) -> None:
    with pytest.raises(WaitTimeout, match="clone-a"):
        agent.run(["sleep", "100"], timeout=0.3)


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="guest agent"):
        AgentHost("clone-a", socket_path=tmp_path / "none").run(["true"])


# copies


def test_a_copy_gets_its_own_address_once() -> None:
    node = clones.Node(name="clone-b", address="192.168.98.9")
    operation = vm_clones.address(node, SUBNET, "192.168.98.2")
    wanted = disks.interfaces(node.address, 24, "192.168.98.2")
    shown = [{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "192.168.98.8", "prefixlen": 24}]}]
    host = FakeHost({"ip -j address": json.dumps(shown)})
    assert [str(command) for command in operation(host)] == [
        "write /etc/network/interfaces",
        "ip address flush dev eth0",
        "ip address add 192.168.98.9/24 dev eth0",
        "ip route replace default via 192.168.98.2",
    ]
    shown[0]["addr_info"][0]["local"] = node.address  # type: ignore[index]
    right = FakeHost({"ip -j address": json.dumps(shown)}, files={"/etc/network/interfaces": wanted})
    assert list(operation(right)) == []
