"""Operations yield only what is still needed; a second run yields nothing."""

from __future__ import annotations

from fakes import FakeHost
from stackbook.cluster import kubeadm
from stackbook.machines import operations
from stackbook.machines.operations import apply, pending


def commands(host: FakeHost, operation: operations.Operation) -> list[str]:
    return [str(c) for c in pending(host, operation)]


def test_hostname() -> None:
    host = FakeHost({"hostname": "old\n"}, files={"/etc/hostname": "old\n"})
    assert [c.split()[0] for c in commands(host, operations.hostname("new"))] == ["sh", "hostname"]
    done = FakeHost({"hostname": "new\n"}, files={"/etc/hostname": "new\n"})
    assert commands(done, operations.hostname("new")) == []


def test_host_table_keeps_other_lines() -> None:
    host = FakeHost(files={"/etc/hosts": "127.0.0.1 localhost\n10.9.9.9 k8s-master\n"})
    (change,) = pending(host, operations.hosts_table({"k8s-master": "192.168.98.3"}))
    assert change.stdin == "127.0.0.1 localhost\n192.168.98.3 k8s-master\n"
    done = FakeHost(files={"/etc/hosts": change.stdin})
    assert commands(done, operations.hosts_table({"k8s-master": "192.168.98.3"})) == []


def test_sysctls_leave_out_what_the_kernel_lacks() -> None:
    answers = {"sysctl -n net.ipv4.ip_forward": "0\n", "sysctl -n net.bridge.x": (255, "", "no such")}
    host = FakeHost(dict(answers))
    wanted = {"net.ipv4.ip_forward": "1", "net.bridge.x": "1"}
    assert commands(host, operations.sysctls(wanted)) == [
        "write /etc/sysctl.d/k8s.conf",
        "sysctl -w net.ipv4.ip_forward=1",
    ]
    done = FakeHost(
        {**answers, "sysctl -n net.ipv4.ip_forward": "1\n"},
        files={"/etc/sysctl.d/k8s.conf": "net.ipv4.ip_forward = 1\n"},
    )
    assert commands(done, operations.sysctls(wanted)) == []


def test_modules_that_are_built_in_or_cannot_be_loaded_are_left_alone() -> None:
    host = FakeHost(
        {"test -d /sys/module/overlay": "", "test -d /sys/module/br_netfilter": (1, "", ""),
         "modprobe -n br_netfilter": (1, "", "not found")},
        files={"/proc/modules": "vxlan 1 0 - Live 0x0\n", "/etc/modules-load.d/k8s.conf": "overlay\nbr_netfilter\n"},
    )  # fmt: skip
    assert commands(host, operations.modules(["overlay", "br_netfilter"])) == []
    host.answers["modprobe -n br_netfilter"] = ""
    assert commands(host, operations.modules(["overlay", "br_netfilter"])) == ["modprobe br_netfilter"]


def test_swap_off_touches_the_swap_line_alone() -> None:
    table = "UUID=1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n# /old none swap sw 0 0\n"
    host = FakeHost(files={"/etc/fstab": table, "/proc/swaps": "Filename\n/swapfile file 1 0 -2\n"})
    write, off = pending(host, operations.swap_off())
    assert write.text == table.replace("\n/swapfile", "\n#/swapfile")
    assert off.argv == ("swapoff", "-a")
    done = FakeHost(files={"/etc/fstab": write.text, "/proc/swaps": "Filename\n"})
    assert commands(done, operations.swap_off()) == []


def test_units() -> None:
    ask = "systemctl show -p ActiveState,UnitFileState x"
    off = FakeHost({ask: "ActiveState=inactive\nUnitFileState=disabled\n"})
    assert commands(off, operations.unit("x")) == ["systemctl enable x", "systemctl start x"]
    on = FakeHost({ask: "ActiveState=active\nUnitFileState=enabled\n"})
    assert commands(on, operations.unit("x")) == []


def test_apply_runs_and_counts_what_was_needed() -> None:
    host = FakeHost(files={"/a": "old"})
    assert [str(c) for c in apply(host, operations.file("/a", "new"))] == ["write /a"]
    assert host.files["/a"] == "new"
    assert apply(host, operations.file("/a", "new")) == []


def test_containerd_is_restarted_only_when_its_configuration_changed() -> None:
    text = kubeadm.containerd_config("p:1", contained=True)
    ask = "systemctl show -p ActiveState,UnitFileState containerd"
    host = FakeHost(
        {ask: "ActiveState=active\nUnitFileState=enabled\n", "test -x /opt/cni/bin/bridge": ""},
        files={"/etc/containerd/config.toml": text},
    )
    assert commands(host, kubeadm.runtime("p:1", contained=True)) == []
    assert commands(host, kubeadm.runtime("p:2", contained=True)) == [
        "write /etc/containerd/config.toml",
        "systemctl restart containerd",
    ]


def test_packages_that_are_missing_are_installed_and_foreign_programs_kept() -> None:
    query = "dpkg-query -W -f ${Package} ${db:Status-Status}\\n socat jq containerd"
    foreign = {'sh -c command -v "$1" which containerd': "/usr/local/bin/containerd\n"}
    answers = {query: (1, "socat installed\njq not-installed\n", "no packages found matching containerd"), **foreign}
    wanted = operations.packages(["socat", "jq", "containerd"], unless={"containerd": "containerd"})
    found = commands(FakeHost(answers), wanted)
    assert found[0] == "apt-get update -qq"
    assert found[1].endswith("--no-install-recommends jq")
    done = {query: "socat installed\njq installed\ncontainerd installed\n"}
    assert commands(FakeHost(done), wanted) == []
