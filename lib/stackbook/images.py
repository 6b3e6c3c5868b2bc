"""Images for machines that reach no registry: an OCI archive, imported by containerd on each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stackbook.errors import StackbookError
from stackbook.hosts import ContainerHost, Host

_CTR = ("ctr", "-n", "k8s.io", "images")


def present(host: Host) -> dict[str, str]:
    """Reference → digest of the images that a machine's containerd has for the kubelet."""
    found = {}
    for line in host.run([*_CTR, "ls"]).lines[1:]:
        words = line.split()
        found[words[0]] = words[2]
    return found


def load(machines: Mapping[str, Host], archive: Path, references: Sequence[str]) -> int:
    """Import an archive into the machines that lack any of its images, several at a time.

    Args:
        machines: by name.
        archive: an OCI archive on this host.
        references: what must be there afterwards.

    Returns:
        How many machines were changed.

    Raises:
        CommandFailed: containerd refused the archive.
        StackbookError: an image is missing after the import.
    """
    lacking = {n: h for n, h in machines.items() if set(references) - set(present(h))}
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda item: _import(item[1], archive, references), lacking.items()))
    return len(lacking)


def _import(host: Host, archive: Path, references: Sequence[str]) -> None:
    inside, copied = _reachable(host, archive)
    try:
        host.run([*_CTR, "import", inside], timeout=600)
    finally:
        if copied:
            host.run(["rm", "-f", inside])
    if missing := sorted(set(references) - set(present(host))):
        raise StackbookError(f"{archive.name} was imported on {host.name}, but these images are not there: {missing}")


def _reachable(host: Host, archive: Path) -> tuple[str, bool]:
    """The archive's path on the machine, and whether a copy was put there for the import."""
    if isinstance(host, ContainerHost):
        for here, there in host.shared:
            if archive.resolve().is_relative_to(here.resolve()):
                return f"{there}/{archive.resolve().relative_to(here.resolve())}", False
    remote = f"/var/tmp/stackbook-{archive.name}"
    host.put(archive, remote, mode=0o600)
    return remote, True
