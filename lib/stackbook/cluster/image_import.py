"""Bring images to machines: containerd on each machine imports an OCI archive, or pulls an image.

Images of an archive are compared by digest as well as by name, so an image with the same name and other content is imported
again. containerd pulls an image as it always does: through its mirrors, and with a check of each layer's digest.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stackbook.config.registries import CERTS, PROXY_FILE
from stackbook.core.errors import CorruptArtifact, StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines.transports import ContainerHost, Host

_CTR = ("ctr", "-n", "k8s.io", "images")
_NAME = "io.containerd.image.name"
# Importing the largest archive takes 8 s on two busy processors; a machine under load may take ten times as long.
IMPORT_SECONDS = 600.0
# The largest image of the lab is Elasticsearch's, about 700 MB.
PULL_SECONDS = 900.0
_PULL = (*_CTR, "pull", "--hosts-dir", CERTS)


def contents(archive: Path) -> dict[str, str]:
    """The images in an OCI archive: reference → digest.

    Raises:
        CorruptArtifact: it is not an OCI archive.
    """
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile("index.json")
            if file is None:
                raise KeyError("index.json")
            index = json.load(file)
        return {m["annotations"][_NAME]: m["digest"] for m in index["manifests"]}
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise CorruptArtifact(
            f"{archive} is not an OCI archive: {error}", fix="stackbook fetch creates it again"
        ) from error


def listed(host: Host) -> dict[str, tuple[str, str]]:
    """The images that a machine's containerd has for the kubelet: reference → (digest, size with its unit)."""
    lines = (line.split() for line in host.run([*_CTR, "ls"], timeout=120).lines[1:])
    return {words[0]: (words[2], " ".join(words[3:5])) for words in lines if len(words) > 4}


def present(host: Host) -> dict[str, str]:
    """The images that a machine's containerd has for the kubelet: reference → digest."""
    return {reference: digest for reference, (digest, _) in listed(host).items()}


def lacks(host: Host, wanted: Mapping[str, str]) -> list[str]:
    """The references that a machine lacks or has with another digest, sorted."""
    there = present(host)
    return sorted(name for name, digest in wanted.items() if there.get(name) != digest)


def begin(machines: Mapping[str, Host], archive: Path) -> int:
    """Start an import in the background on the machines that lack any of its images; `load` waits for it.

    Returns:
        How many imports were started. A machine that needs a copy of the archive first is left to `load`.
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
        StackbookError: after the import, an image is missing or has another digest.
    """
    wanted = contents(archive)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return sum(pool.map(lambda host: _ensure(host, archive, wanted), machines.values()))


def begin_pull(machines: Mapping[str, Host], references: Iterable[str]) -> int:
    """Start pulling images in the background on machines that lack them; `pull` waits. Returns how many pulls were started."""
    started = 0
    for host in machines.values():
        there = present(host)
        for reference in references:
            unit = _pull_unit(reference)
            if reference not in there and not _active(host, unit):
                host.run([*_as_unit(unit), *_PULL, reference])
                started += 1
    return started


def pull(
    machines: Mapping[str, Host], image: str, *, digest: str = "", timeout: float = PULL_SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Pull an image on the machines that lack it, several at a time; returns how many were changed.

    Args:
        machines: by name.
        image: its full name with a tag.
        digest: the digest that it must have; empty if it is not known.
        timeout: deadline in seconds for each machine.
        say: takes one line of progress.

    Raises:
        PullFailed: containerd could not pull it, or got another digest; the message gives the reason in one line.
    """
    lacking = {name: host for name, host in machines.items() if image not in present(host)}
    if lacking:
        say(f"pulling {image} on {', '.join(lacking)}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda host: _pull(host, image, timeout), lacking.values()))
    for host in machines.values():
        if digest and (got := present(host).get(image)) != digest:
            host.run([*_CTR, "rm", image], check=False)
            raise PullFailed(f"{image} has digest {got} on {host.name}, and {digest} is pinned")
    return len(lacking)


_DAMAGED = "unexpected commit digest"
"""A layer arrived damaged. containerd keeps it until its next garbage collection, and a pull before that would continue from it."""
_LEASES = ("ctr", "-n", "k8s.io", "leases")


class PullFailed(StackbookError):
    """An image could not be pulled on a machine."""


def _pull(host: Host, image: str, timeout: float) -> None:
    unit = _pull_unit(image)
    if _active(host, unit):
        until(lambda: not _active(host, unit), what=f"{host.name} to pull {image}", timeout=timeout, every=0.3)
    if image in present(host):
        return
    for attempt in range(2):
        try:
            answer = host.run(
                [*_as_unit(f"{unit}-again"), "--wait", "--pipe", *_PULL, image], check=False, timeout=timeout
            )
        except WaitTimeout:
            host.run(["systemctl", "stop", f"{unit}-again"], check=False)
            raise PullFailed(
                f"timed out after {timeout:.0f} s pulling {image} on {host.name}: its registry does not answer, or is too slow"
            ) from None
        if answer.ok:
            return
        reason = pull_reason(answer.stderr + answer.stdout)
        if _DAMAGED in reason:
            _collect_garbage(host)
        if attempt or _DAMAGED not in reason:
            raise PullFailed(reason)


def _collect_garbage(host: Host) -> None:
    """Make containerd remove what failed pulls left: it deletes a lease with `--sync` only when it has collected garbage."""
    lease = host.run([*_LEASES, "create"], check=False, timeout=60)
    if lease.ok:  # otherwise the pull's own error says more
        host.run([*_LEASES, "delete", "--sync", lease.stdout.strip()], check=False, timeout=60)


def pull_reason(said: str) -> str:
    """Why ctr could not pull an image, in one line without the fields of its log.

    >>> pull_reason('ctr: failed to resolve reference "docker.io/a:1": docker.io/a:1: not found')
    'failed to resolve reference "docker.io/a:1": docker.io/a:1: not found'
    """
    lines = (
        [line for line in said.splitlines() if line.startswith("ctr: ")] or said.strip().splitlines() or ["no output"]
    )
    return lines[-1].removeprefix("ctr: ").strip()[:300]


def environment(host: Host, reference: str) -> dict[str, str]:
    """The environment variables that an image sets, read from containerd on a machine that has the image.

    Raises:
        StackbookError: the machine does not have the image.
    """
    digest = present(host).get(reference)
    if digest is None:
        raise StackbookError(f"{host.name} has no image {reference}")

    def content(of: str) -> Any:
        return json.loads(host.run(["ctr", "-n", "k8s.io", "content", "get", of], timeout=60).stdout)

    document = content(digest)
    if "manifests" in document:  # an index: the manifest of this architecture
        document = content(next(m["digest"] for m in document["manifests"] if m["platform"]["architecture"] == "amd64"))
    config = content(document["config"]["digest"])
    return dict(entry.split("=", 1) for entry in config.get("config", {}).get("Env") or [])


def _ensure(host: Host, archive: Path, wanted: Mapping[str, str]) -> int:
    began = _busy(host, archive)
    if began:
        until(lambda: not _busy(host, archive), what=f"{host.name} to import its images", timeout=IMPORT_SECONDS,
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
        raise StackbookError(f"an archive was imported on {host.name}, but these images are missing: {missing}")
    return 1


def _unit(archive: Path) -> str:
    return f"stackbook-import-{archive.name[:12]}"


def _busy(host: Host, archive: Path) -> bool:
    return _active(host, _unit(archive))


def _active(host: Host, unit: str) -> bool:
    return host.run(["systemctl", "is-active", "--quiet", unit], check=False).ok


def _as_unit(name: str) -> list[str]:
    """Wrap a command in its own systemd unit with containerd's proxies, because ctr itself connects to the registry."""
    return ["systemd-run", "--quiet", "--collect", f"--unit={name}", f"--property=EnvironmentFile=-{PROXY_FILE}"]


def _pull_unit(reference: str) -> str:
    return f"stackbook-pull-{hashlib.sha256(reference.encode()).hexdigest()[:12]}"


def _reachable(host: Host, archive: Path, *, copy: bool) -> tuple[str, bool]:
    """The archive's path on the machine, and whether it was copied there; the path is empty if it would need a copy."""
    if isinstance(host, ContainerHost):
        for here, there in host.shared:
            if archive.resolve().is_relative_to(here.resolve()):
                return f"{there}/{archive.resolve().relative_to(here.resolve())}", False
    if not copy:
        return "", False
    remote = f"/var/tmp/stackbook-{archive.name}"
    host.put(archive, remote, mode=0o600)
    return remote, True
