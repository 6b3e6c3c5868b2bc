"""Gitea's container registry, at an address that the lab's machines reach, and containerd's trust in it.

Gitea is a registry, too (https://docs.gitea.com/usage/packages/container). It listens on loopback alone; while the block runs,
connections to one port of the lab's gateway, which only the lab's machines and this host reach, are carried there.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.config.registries import CERTS
from stackbook.core import private
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.lessons.containers import ports
from stackbook.lessons.delivery.gitea import USER, Gitea

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_PODMAN = """\
#!/bin/sh
own='for place in /run /dev/shm /var/lib/containers; do mount -t tmpfs tmpfs "$place"; done; exec podman "$@"'
PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin exec unshare --mount sh -ec "$own" podman "$@"
"""
REPOSITORY = "front"
_DISTRUST = 'grep -lsxF "$1" "$2"/*/hosts.toml | while read -r file; do rm "$file" && rmdir "${file%/*}"; done'
# The kubelet gives an image a second name, that of its content.
_REMOVE_IMAGES = """\
ctr -n k8s.io images ls | awk -v from="$1" -v name="$2" '
  NR > 1 { digest[$1] = $3; if (index($1, from) == 1 && index($1, name)) gone[$3] }
  END { for (image in digest) if (digest[image] in gone) print image }
' | xargs -r ctr -n k8s.io images rm --sync >/dev/null
"""
MARK = "# stackbook: the registry of chapter 13, which has no TLS"


@contextlib.contextmanager
def reachable(lab: Lab, server: Gitea) -> Iterator[str]:
    """Gitea's registry for the machines while the block runs; its value is the address, host:port.

    Afterwards no machine trusts it any more. What a killed run has left is removed first.

    Raises:
        CheckFailed: the gateway's address cannot be opened.
    """
    with socket.socket() as listening:
        try:
            listening.bind((lab.profile.gateway, 0))
        except OSError as error:
            raise CheckFailed(f"the lab's gateway {lab.profile.gateway} cannot be opened: {error.strerror}") from error
        listening.listen(128)
        address = f"{lab.profile.gateway}:{listening.getsockname()[1]}"
        with ports.carried([listening], [int(server.host.rpartition(":")[2])]):
            forget(lab)
            try:
                for host in lab.machines.values():
                    host.write(f"{CERTS}/{address}/hosts.toml", hosts_file(address))
                yield address
            finally:
                forget(lab)


def hosts_file(address: str) -> str:
    """The file by which containerd asks a registry without TLS; without it, containerd demands TLS of every other host."""
    url = f'"http://{address}"'
    return f'{MARK}\nserver = {url}\n\n[host.{url}]\n  capabilities = ["pull", "resolve"]\n'


def forget(lab: Lab) -> None:
    """Remove from every machine the files that `reachable` has written, told from others by their mark, and the pulled images."""
    for host in lab.machines.values():
        host.run(["sh", "-c", _DISTRUST, "sh", MARK, CERTS])
        host.run(["sh", "-c", _REMOVE_IMAGES, "sh", f"{lab.profile.gateway}:", f"/{USER}/{REPOSITORY}@"])


def token(server: Gitea) -> Secret:
    """A token of Gitea's user that may write packages, and nothing else."""
    return Secret(str(server.post(f"/users/{USER}/tokens", {"name": "release", "scopes": ["write:package"]})["sha1"]))


def podman(folder: Path, address: str) -> dict[str, str]:
    """The environment of a podman that builds and pushes; `bin/podman` in the folder runs it.

    It writes into this folder alone. podman keeps a cache of layers and some locks at fixed places, whatever its settings say; there
    it finds file systems of its own, in a mount namespace that ends with it.

    Args:
        folder: an existing folder.
        address: the registry, which has no TLS.
    """
    settings = {
        "containers.conf": f'[engine]\nlock_type = "file"\ntmp_dir = "{folder}/tmp"\nevents_logger = "none"\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder}/networks"\n',
        "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n',
        "registries.conf": f'[[registry]]\nlocation = "{address}"\ninsecure = true\n',
    }
    for name, text in settings.items():
        private.write(folder / name, text)
    program = folder / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(_PODMAN, encoding="ascii")
    program.chmod(0o700)
    return {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
        "TMPDIR": str(folder),
    }
