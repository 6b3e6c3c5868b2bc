"""Removing a lab's containers, volumes and bridge from podman, where it does not do so by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stackbook.core.errors import CommandFailed
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.providers.base import Say
from stackbook.machines.transports import Host

SLOW_TO_END = "did not die within timeout"  # of podman's error

Podman = Callable[..., Result]
"""Runs podman with these arguments; with `check=False`, it does not raise if podman fails."""


def remove(podman: Podman, containers: Sequence[str], volumes: Iterable[str], say: Say) -> None:
    """Remove containers, up to four at a time, and then volumes.

    Raises:
        CommandFailed: podman refused.
        WaitTimeout: the processes of a container do not end.
    """
    for container in containers:
        say(f"removing {container}")
    with ThreadPoolExecutor(max_workers=4) as pool:
        for job in [pool.submit(_remove_container, podman, container) for container in containers]:
            job.result()
    for volume in sorted(volumes):
        _remove_volume(podman, volume)


def _remove_container(podman: Podman, container: str) -> None:
    """Kill a container's processes and remove it.

    podman gives up when they still exist 5 s after SIGKILL, as those of a machine that writes much can; so it is
    asked again until they are gone.

    Raises:
        CommandFailed: podman refused for another reason.
        WaitTimeout: the processes still exist after two minutes.
    """
    said = ""

    def removed() -> bool:
        nonlocal said
        answer = podman("rm", "-f", "-v", "-t", "0", container, check=False, timeout=180)
        said = answer.stderr.strip()
        if not answer.ok and SLOW_TO_END not in said:
            raise CommandFailed(answer)
        return answer.ok

    until(removed, what=f"the processes of {container} to end", timeout=120, every=1, last=lambda: said)


def _remove_volume(podman: Podman, volume: str) -> None:
    """Remove an unused volume; podman may report a missing lock although it has removed the volume."""
    answer = podman("volume", "rm", volume, check=False)
    if not answer.ok and volume in podman("volume", "ls", "--format", "{{.Name}}").lines:
        podman("volume", "rm", volume)


def remove_bridge(host: Host, interface: str, gateway: str) -> None:
    """Remove the bridge of a network that is gone: podman leaves it where the network's set-up failed half-way.

    It is the lab's if it has the gateway's address, or none, and nothing is attached to it.
    """
    if not interface:
        return
    bridges = facts.parse_json(host.run(["ip", "-j", "address", "show", "type", "bridge"], check=False).stdout)
    link = next((each for each in bridges if each.get("ifname") == interface), None)
    if link is None:
        return
    addresses = {str(each.get("local")) for each in link.get("addr_info", []) if each.get("family") == "inet"}
    attached = host.run(["ip", "-j", "link", "show", "master", interface], check=False).stdout.strip()
    if addresses <= {gateway} and attached in ("", "[]"):
        host.run(["ip", "link", "delete", interface, "type", "bridge"], check=False)
