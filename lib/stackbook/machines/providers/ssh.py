"""Existing machines, reached by SSH, and existing clusters, reached by a kubeconfig."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import WaitTimeout
from stackbook.machines import operations
from stackbook.machines.providers import ssh_checks, ssh_state
from stackbook.machines.providers.base import Say
from stackbook.machines.ssh_host import SSHHost
from stackbook.machines.transports import Host

# What kubeadm's preflight and the chapters need. A machine that has another containerd keeps it.
PACKAGES = (
    "containerd", "runc", "containernetworking-plugins", "conntrack", "ipset", "ethtool", "socat", "ebtables", "iptables",
    "iproute2", "ifupdown", "kmod", "procps", "curl", "tcpdump", "iperf3", "traceroute", "iputils-ping", "iputils-arping",
    "netcat-openbsd", "busybox-static", "bind9-host", "bash-completion", "fish", "jq",
)  # fmt: skip


@dataclass(frozen=True)
class SSH:
    """The machines that the profile lists."""

    profile: Profile

    def provision(self, *, say: Say) -> int:
        """Wait until each machine answers, check it, and install missing packages; returns how many machines changed.

        Every machine is checked before the first one is changed.

        Raises:
            InputError: a machine refuses the key, has another host key, needs a password for sudo, or is not one that the lab
                can use; nothing was changed.
            WaitTimeout: a machine does not answer.
        """
        machines = self.machines()
        for name, host in machines.items():
            say(f"waiting for {name}")
            ssh_checks.demand(host)
        ssh_checks.demand_different(machines)
        changed = 0
        for host in machines.values():
            ssh_state.remember(host, self.profile.lab)
            changed += bool(
                operations.apply(
                    host, operations.packages(PACKAGES, unless={"containerd": "containerd", "runc": "runc"})
                )
            )
        return changed

    def demand(self) -> None:
        """Refuse machines that cannot be used; one that does not answer yet is left to `provision`, which waits for it.

        Raises:
            InputError: see `provision`.
        """
        up: dict[str, Host] = {}
        for name, host in self.machines().items():
            with suppress(WaitTimeout):
                ssh_checks.demand(host, timeout=0)
                up[name] = host
        ssh_checks.demand_different(up)

    def machines(self) -> dict[str, Host]:
        """A host for each node."""
        given = self.profile.known_hosts
        known = Path(given).expanduser() if given else paths.state(self.profile.lab) / "known_hosts"
        return {
            node.name: SSHHost(
                name=node.name,
                address=node.address,
                user=node.user,
                port=node.port,
                key=Path(node.key).expanduser() if node.key else None,
                known_hosts=known,
                strict=bool(given),
                jump=node.jump,
            )
            for node in self.profile.nodes
        }

    def delete(self, *, say: Say) -> int:
        """Keep the machines; chapter 99 runs `kubeadm reset` on each of them."""
        return 0

    def collect_logs(self, folder: Path) -> None:
        """Save the journal of each machine."""
        collect_journals(self.machines(), folder)


@dataclass(frozen=True)
class Cluster:
    """An existing cluster without machines of the lab, reached by its kubeconfig."""

    profile: Profile

    def provision(self, *, say: Say) -> int:
        """Create nothing."""
        return 0

    def machines(self) -> dict[str, Host]:
        """None, because somebody else runs them."""
        return {}

    def delete(self, *, say: Say) -> int:
        """Remove nothing."""
        return 0

    def collect_logs(self, folder: Path) -> None:
        """Save nothing: there are no machines."""


def collect_journals(machines: dict[str, Host], folder: Path) -> None:
    """Save the journals of each machine's units into `folder`, one file for each unit, with secrets masked."""
    from stackbook.core.redact import redact

    folder.mkdir(parents=True, exist_ok=True)
    for name, host in machines.items():
        for unit in ("kubelet", "containerd", "init.scope"):
            answer = host.run(["journalctl", "-m", "--no-pager", "-n", "2000", "-u", unit], check=False, timeout=30)
            (folder / f"{name}-{unit}.log").write_text(redact(answer.stdout + answer.stderr), encoding="utf-8")
