"""A machine's addresses, names and reachability, as chapter 01 sets and proves them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackbook.cluster import kubeadm
from stackbook.config.profile import Profile
from stackbook.machines import facts, operations
from stackbook.machines.operations import Operation
from stackbook.machines.transports import Host, LocalHost

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

# The guide's file (F01), letter by letter.
GUIDE_INTERFACES = """\
auto ens33
iface ens33 inet static
address 192.168.98.3
netmask 255.255.255.0
gateway 192.168.98.2 # vmware中设置的NAT网关
"""

# https://kubernetes.io/docs/reference/networking/ports-and-protocols/ and flannel's documentation.
PORTS: list[dict[str, str]] = [
    {
        "port": "6443/tcp",
        "on": "control plane",
        "who listens": "API server",
        "for whom": "everybody who uses kubectl, nodes",
    },
    {"port": "2379-2380/tcp", "on": "control plane", "who listens": "etcd", "for whom": "the API server, nobody else"},
    {"port": "10250/tcp", "on": "every node", "who listens": "kubelet", "for whom": "control plane"},
    {"port": "10257/tcp", "on": "control plane", "who listens": "controller manager", "for whom": "itself"},
    {"port": "10259/tcp", "on": "control plane", "who listens": "scheduler", "for whom": "itself"},
    {"port": "10256/tcp", "on": "every node", "who listens": "kube-proxy", "for whom": "load balancers"},
    {"port": "30000-32767/tcp", "on": "every node", "who listens": "NodePort services", "for whom": "users"},
    {"port": "8472/udp", "on": "every node", "who listens": "flannel (VXLAN)", "for whom": "every node"},
]


def corrected_interfaces(profile: Profile) -> str:
    """The guide's file with its comment on a separate line, for this profile's control plane."""
    return (
        "# the gateway is VMware's NAT gateway\nauto ens33\niface ens33 inet static\n"
        f"address {profile.control_plane.address}\nnetmask 255.255.255.0\ngateway {profile.gateway}\n"
    )


def resolved_conf(profile: Profile) -> str:
    """The guide's setting of systemd-resolved in its section, for this profile's gateway."""
    return f"# DNS= belongs under [Resolve]\n[Resolve]\nDNS={profile.gateway}\n"


def ifquery(host: Host, text: str) -> dict[str, str]:
    """How ifupdown reads an interfaces file: its settings for ens33, by name.

    It uses a temporary file; the machine's own is not changed.
    """
    path = "/tmp/stackbook-interfaces"
    host.write(path, text)
    try:
        answer = host.run(["ifquery", f"--interfaces={path}", "ens33"])
    finally:
        host.run(["rm", "-f", path])
    pairs = (line.split(": ", 1) for line in answer.lines if ": " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def names(profile: Profile) -> Operation:
    """Make the machine resolve every node by its host table, and everything else by the gateway.

    Machines that stackbook did not create keep their name servers.
    """
    resolved = resolved_conf(profile)

    def operation(host: Host) -> Any:
        yield from operations.hosts_table({node.name: node.address for node in profile.nodes})(host)
        if not profile.creates_machines or not facts.executable("resolvectl").read(host):
            return
        path = "/etc/systemd/resolved.conf.d/stackbook.conf"
        written = list(operations.file(path, resolved)(host))
        yield from written
        yield from operations.unit("systemd-resolved")(host)
        if written:
            yield operations.command("systemctl", "restart", "systemd-resolved")

    return operation


def addressing(lab: Lab) -> list[dict[str, str]]:
    """Address, default route, DNS server and owner of /etc/resolv.conf of each machine."""
    rows = []
    for name, host in lab.machines.items():
        routes = facts.ROUTES.read(host)
        default = next((r for r in routes if r.get("dst") == "default"), {})
        device = str(default.get("dev", ""))
        interfaces = {i.name: i for i in facts.INTERFACES.read(host)}
        addresses = interfaces[device].addresses if device in interfaces else ()
        servers = name_servers(host)
        rows.append(
            {
                "machine": name,
                "address": ", ".join(addresses),
                "default route": f"via {default.get('gateway', 'none')}",
                "DNS server": servers,
                "/etc/resolv.conf": host.run(["readlink", "-f", "/etc/resolv.conf"]).stdout.strip(),
            }
        )
    return rows


def routed(lab: Lab, row: dict[str, str]) -> bool:
    """Whether a row of `addressing` has the right default route: by the gateway of the lab's own network, or any on your machines."""
    route = row["default route"]
    return route == f"via {lab.profile.gateway}" if lab.profile.creates_machines else route != "via none"


def name_servers(host: Host) -> str:
    """The name servers that a machine uses: systemd-resolved's, else those of /etc/resolv.conf; empty if there are none.

    A name server on loopback does not count: a pod that gets it would ask itself.
    """
    answer = host.run(["resolvectl", "dns"], check=False)
    lists = [line.split(":", 1)[1].split() for line in answer.lines if ":" in line] if answer.ok else []
    lines = host.run(["cat", "/etc/resolv.conf"], check=False).lines
    lists.append([line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1])
    found = [[server for server in servers if not server.startswith("127.")] for servers in lists]
    return " ".join(next((servers for servers in found if servers), []))


def kernel(lab: Lab) -> list[dict[str, str]]:
    """The kernel parameters that kubeadm and flannel require, on each machine."""
    return [
        {"machine": name, **{key: facts.sysctl(key).read(host) for key in kubeadm.SYSCTLS}}
        for name, host in lab.machines.items()
    ]


def reachability(lab: Lab) -> list[dict[str, Any]]:
    """Whether each machine reaches every other one, by address and by name, with one packet each."""
    rows = []
    for name, host in lab.machines.items():
        for other in lab.profile.nodes:
            if other.name == name:
                continue
            rows.append(
                {
                    "from": name,
                    "to": other.name,
                    "by address": _pings(host, other.address),
                    "by name": _pings(host, other.name),
                }
            )
    return rows


def _pings(host: Host, target: str) -> bool:
    return host.run(["ping", "-c", "1", "-W", "2", target], check=False, timeout=10).ok


def open_ports(host: Host, target: str, ports: Mapping[str, int]) -> dict[str, bool]:
    """Whether a TCP connection from this machine to each port of the target is accepted."""
    if isinstance(host, LocalHost):
        return {name: _accepts(target, port) for name, port in ports.items()}
    return {
        name: host.run(["nc", "-z", "-w", "5", target, str(port)], check=False, timeout=30).ok
        for name, port in ports.items()
    }


def _accepts(target: str, port: int) -> bool:
    try:
        with socket.create_connection((target, port), timeout=5):
            return True
    except OSError:
        return False
