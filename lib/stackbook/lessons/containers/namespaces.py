"""A podman with namespaces of its own, so that it can neither see nor change the host's podman, network or processes.

podman keeps some state at fixed places, whatever its options say: locks in /dev/shm, and its networks' addresses and name server
below /run. A second podman for the same user would write to those of the first. So this one has a mount namespace with its own
/run and /dev/shm, a network namespace with its own bridges and firewall, and a process namespace: when its first process ends,
the kernel ends all others and takes networks, rules and mounts away (namespaces(7)).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stackbook.artifacts import go_toolchain
from stackbook.core.errors import HostUnfit
from stackbook.lessons.containers import nameserver

NEEDED = ("podman", "unshare", "nsenter", "setpriv", "ip", "mount", "conmon", "iptables")
_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# The name server has an address for documentation (RFC 5737), which is nobody's: podman gives containers no loopback address.
_RESOLVER = "192.0.2.53"
# Nothing is pulled, also where a short name is asked for.
_REGISTRIES = 'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "docker.io"\nblocked = true\n'
_MOST = 1 << 20
_ENTER = """\
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1" /etc/resolv.conf
ip link set lo up
ip address add "$2/32" dev lo
"$3" -I "$4" "$2" &
shift 4
"""


@dataclass(frozen=True)
class Folder:
    """The folder of a private podman: its settings, and everything that it writes.

    Attributes:
        path: the folder.
        graph_root: where containers, volumes and new images are.
        image_stores: stores that are only read.
    """

    path: Path
    graph_root: Path
    image_stores: Sequence[Path] = field(default=())

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes: nothing of the user's but PATH."""
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "HOME": str(self.path),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.path / "tmp"),
            "CONTAINERS_CONF": str(self.path / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.path / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.path / "registries.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # podman would ask systemd for timers, and log each time that it is not there
        }

    def write(self) -> None:
        """Create the folder with its settings."""
        for each in (self.path, self.path / "tmp", self.path / "networks"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.path / "containers.conf").write_text(_settings(self.path))
        (self.path / "registries.conf").write_text(_REGISTRIES)
        (self.path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (self.path / "resolv.conf").write_text(f"nameserver {_RESOLVER}\n")
        (self.path / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = {json.dumps(str(self.graph_root))}\n'
            'runroot = "/run/storage"\n[storage.options]\n'  # podman refuses one with more than 50 characters
            f"additionalimagestores = {json.dumps([str(store) for store in self.image_stores])}\n"
        )


def _settings(folder: Path) -> str:
    """containers.conf(5): nothing depends on systemd, and no container gets limits above this process's.

    podman's API gives each container 1048576 open files and processes, which fails where a hard limit is lower.
    """
    limits = [
        f"{name}={_limit(number)}:{_limit(number)}"
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    ]
    runtime = "runc" if Path("/sys/fs/cgroup/memory").is_dir() else ""  # crun refuses a hybrid hierarchy
    lines = [
        "[containers]", 'cgroups = "no-conmon"', f"default_ulimits = {json.dumps(limits)}", 'log_driver = "k8s-file"',
        "[engine]", 'cgroup_manager = "cgroupfs"', 'events_logger = "file"',
        'tmp_dir = "/run/libpod"', *([f'runtime = "{runtime}"'] if runtime else []),
        "[network]", 'network_backend = "netavark"', f"network_config_dir = {json.dumps(str(folder / 'networks'))}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _limit(number: int) -> int:
    hard = resource.getrlimit(number)[1]
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def demand() -> None:
    """Check that this host can run a private podman.

    Raises:
        HostUnfit: this process is not root's, or a program is missing.
    """
    if os.geteuid() != 0:
        raise HostUnfit("only root can create namespaces for containers", fix="run it with sudo")
    search = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=search) is None]:
        raise HostUnfit(f"{', '.join(missing)} not found, but containers need it", fix="tools/setup.sh installs it")


def command(folder: Folder, script: str, *args: str) -> list[str]:
    """The command that runs a shell script in new namespaces; the kernel ends it when this process ends."""
    inside = [str(folder.path / "resolv.conf"), _RESOLVER, sys.executable, str(nameserver.__file__)]
    return go_toolchain.guarded([*_UNSHARE, "sh", "-c", _ENTER + script, "sh", *inside, *args])


def run(folder: Folder, script: str, *args: str, cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a shell script in new namespaces to its end; its output is text.

    Raises:
        HostUnfit: see `demand`.
        subprocess.TimeoutExpired: it did not end within `timeout` seconds; it is ended.
    """
    demand()
    return subprocess.run(command(folder, script, *args), env=folder.environment, cwd=cwd, capture_output=True, text=True,
                          timeout=timeout, check=False)  # fmt: skip
