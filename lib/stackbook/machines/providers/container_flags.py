"""The flags of a machine's container; docs/machines.md explains each one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stackbook.config.profile import Node
from stackbook.core import paths

VOLUMES = ("containerd", "kubelet")
"""The volumes of each machine, below /var/lib. Overlay on overlay does not work, so these folders need a real file system."""
CACHE_INSIDE = "/opt/stackbook"
# The tmpfs mounts that systemd needs. /tmp must allow execution; the sizes limit what a runaway log can use.
_TMPFS = ("/run:rw,mode=755,size=512m", "/run/lock:rw,size=16m", "/tmp:rw,exec,mode=1777,size=1g")


def container_flags(node: Node, *, name: str, labels: Sequence[str], network: str, mac: str) -> list[str]:
    """The flags of `podman run` and `podman create` for a node.

    Args:
        node: the node.
        name: the name of its container.
        labels: the flags that label it as the lab's.
        network: the name of the lab's network.
        mac: its MAC address.
    """
    flags = ["--name", name, "--hostname", node.name, *labels, "--privileged"]
    flags += ["--network", network, "--ip", node.address, "--mac-address", mac]
    # On cgroup v1, podman's systemd mode mounts the host's systemd hierarchy, and two machines would share it.
    flags += ["--systemd=false", "--cgroupns=private", "-e", "container=podman", "--stop-signal=SIGRTMIN+3"]
    flags += ["--stop-timeout", "10", "--tz", "UTC", "--no-hosts", "--dns=none", "--network-alias", node.name]
    for mount in _TMPFS:
        flags += ["--tmpfs", mount]
    for volume in VOLUMES:
        flags += ["-v", f"{name}-{volume}:/var/lib/{volume}"]
    flags += ["-v", f"{paths.cache()}:{CACHE_INSIDE}:ro"]
    if Path("/lib/modules").is_dir():
        flags += ["-v", "/lib/modules:/lib/modules:ro"]
    flags += ["--http-proxy=false"]  # otherwise podman keeps this host's proxy, with its password, in its records
    if Path("/dev/kmsg").exists():
        flags += ["--device", "/dev/kmsg"]
    return flags + _limits()


def _limits() -> list[str]:
    """Ulimits of a machine: what containerd asks for, limited to what this host allows."""
    import resource

    wanted = 1_048_576
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return ["--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=32768:32768"]
