"""Images for machines that reach no registry: an OCI archive, imported by containerd on each of them.

What a machine must have is told by digest, not only by name: an image of the same name with other content is imported again.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stackbook.errors import CorruptArtifact, StackbookError
from stackbook.hosts import ContainerHost, Host
from stackbook.waiting import until

_CTR = ("ctr", "-n", "k8s.io", "images")
_NAME = "io.containerd.image.name"
# An import of the largest bundle takes 8 s on two busy processors; a machine under load may take ten times that.
IMPORT_SECONDS = 600.0


def contents(archive: Path) -> dict[str, str]:
    """Reference → digest of the images in an OCI archive.

    Raises:
        CorruptArtifact: it is no OCI archive.
    """
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile("index.json")
            if file is None:
                raise KeyError("index.json")
            index = json.load(file)
        return {m["annotations"][_NAME]: m["digest"] for m in index["manifests"]}
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise CorruptArtifact(f"{archive} is no OCI archive: {error}", fix="stackbook fetch makes it anew") from error


def present(host: Host) -> dict[str, str]:
    """Reference → digest of the images that a machine's containerd has for the kubelet."""
    lines = (line.split() for line in host.run([*_CTR, "ls"], timeout=120).lines[1:])
    return {words[0]: words[2] for words in lines if len(words) > 2}


def lacks(host: Host, wanted: Mapping[str, str]) -> list[str]:
    """The references that a machine does not have with the wanted digest, sorted."""
    there = present(host)
    return sorted(name for name, digest in wanted.items() if there.get(name) != digest)


def begin(machines: Mapping[str, Host], archive: Path) -> int:
    """Start an import in the background on the machines that lack any of its images; `load` waits for it.

    Returns:
        How many imports were started. Machines that would need a copy of the archive first are left to `load`.
    """
    wanted = contents(archive)
    started = 0
    for host in machines.values():
        inside, copied = _reachable(host, archive, copy=False)
        if copied or not inside or not lacks(host, wanted) or _busy(host, archive):
            continue
        host.run(["systemd-run", "--quiet", "--collect", f"--unit={_unit(archive)}", *_CTR, "import", inside])
        started += 1
    return started


def load(machines: Mapping[str, Host], archive: Path) -> int:
    """Import an archive into the machines that lack any of its images, several at a time.

    Args:
        machines: by name.
        archive: an OCI archive on this host.

    Returns:
        How many machines were changed.

    Raises:
        CommandFailed: containerd refused the archive.
        StackbookError: an image is missing or another one after the import.
    """
    wanted = contents(archive)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return sum(pool.map(lambda host: _ensure(host, archive, wanted), machines.values()))


def _ensure(host: Host, archive: Path, wanted: Mapping[str, str]) -> int:
    began = _busy(host, archive)
    if began:
        until(lambda: not _busy(host, archive), what=f"{host.name} has imported its images", timeout=IMPORT_SECONDS,
              every=0.2)  # fmt: skip
    if not lacks(host, wanted):
        return int(began)
    inside, copied = _reachable(host, archive, copy=True)
    try:
        host.run([*_CTR, "import", inside], timeout=IMPORT_SECONDS)
    finally:
        if copied:
            host.run(["rm", "-f", inside])
    if missing := lacks(host, wanted):
        raise StackbookError(f"an archive was imported on {host.name}, but these images are not there: {missing}")
    return 1


def _unit(archive: Path) -> str:
    return f"stackbook-import-{archive.name[:12]}"


def _busy(host: Host, archive: Path) -> bool:
    return host.run(["systemctl", "is-active", "--quiet", _unit(archive)], check=False).ok


def _reachable(host: Host, archive: Path, *, copy: bool) -> tuple[str, bool]:
    """The archive's path on the machine, and whether a copy was put there; no path where that would need one."""
    if isinstance(host, ContainerHost):
        for here, there in host.shared:
            if archive.resolve().is_relative_to(here.resolve()):
                return f"{there}/{archive.resolve().relative_to(here.resolve())}", False
    if not copy:
        return "", False
    remote = f"/var/tmp/stackbook-{archive.name}"
    host.put(archive, remote, mode=0o600)
    return remote, True
