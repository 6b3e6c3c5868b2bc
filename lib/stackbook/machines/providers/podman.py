"""Embedded machines: privileged podman containers on this host that run systemd, at the guide's addresses.

The flags were found by trial on hosts with cgroup v1, hybrid and v2; docs/machines.md explains each one.
Everything created here has the label `stackbook.lab=<lab>`; nothing without it is ever changed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbook.config.profile import Node, Profile
from stackbook.core import paths
from stackbook.core.errors import CommandFailed, HostUnfit, StackbookError, WaitTimeout
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.identity import own_mac
from stackbook.machines.providers import forwarding
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.belongings import LABEL, Belongings, name_of
from stackbook.machines.providers.container_flags import CACHE_INSIDE, VOLUMES, container_flags
from stackbook.machines.providers.ssh import collect_journals
from stackbook.machines.transports import ContainerHost, Host, LocalHost, belongs

GONE = "running according to podman, but without a process"
SLOW_TO_END = "did not die within timeout"  # of podman's error
EXITS = Path("/run/libpod/exits")  # podman's folder for root, and conmon's `--exit-dir`


@dataclass
class Embedded:
    """The provider of the default profile.

    Args:
        profile: target `embedded`.
        host: this host; a strict fake in unit tests.
    """

    profile: Profile
    host: Host = field(default_factory=LocalHost)
    _known: dict[str, ContainerHost] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """Name of the lab's network."""
        return f"{self.profile.lab}-net"

    def container(self, node: str) -> str:
        """Name of a node's container."""
        return f"{self.profile.lab}-{node}"

    def mac(self, node: Node) -> str:
        """The node's MAC address: from the profile, otherwise a locally administered one made from its IP address."""
        return node.mac or own_mac(node.address)

    @cached_property
    def podman(self) -> tuple[str, ...]:
        """The podman command with its global flags for this host."""
        result = self.host.run(["podman", "info", "--format", "json"], check=False, timeout=60)
        if not result.ok:
            last = (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise HostUnfit(
                f"podman does not work on this host: {last}", fix="run `podman info` and correct what it reports"
            )
        info = json.loads(result.stdout)["host"]
        flags: list[str] = []
        if info.get("cgroupVersion") == "v1":
            # runc, because crun refuses a hybrid hierarchy; cgroupfs, because this host may not run systemd.
            flags += ["--cgroup-manager=cgroupfs", "--runtime=runc"]
        elif not Path("/run/systemd/system").exists():
            flags += ["--cgroup-manager=cgroupfs"]
        return ("podman", *flags)

    def _podman(self, *args: str, check: bool = True, timeout: float = 120.0) -> Result:
        return self.host.run([*self.podman, *args], check=check, timeout=timeout)

    @property
    def belongings(self) -> Belongings:
        """The podman objects of this lab."""
        return Belongings(self.profile.lab, self._podman, str(paths.states() / self.profile.lab))

    def containers(self) -> dict[str, str]:
        """Name → state of the lab's containers, as podman reports it ('running', 'exited' …), or GONE.

        A container is GONE if podman reports a process that does not exist or is not the container's.
        """
        return {name_of(entry): _state(entry) for entry in self.belongings.listed("ps", "-a", "--no-trunc")}

    def machines(self) -> dict[str, Host]:
        """The machines whose containers are running, in the profile's order."""
        if not (
            self._known and len(self._known) == len(self.profile.nodes) and all(h.alive() for h in self._known.values())
        ):
            running = {name for name, state in self.containers().items() if state == "running"}
            self._known = {n.name: self.machine(n) for n in self.profile.nodes if self.container(n.name) in running}
        return dict(self._known)

    def machine(self, node: Node) -> ContainerHost:
        """The host of one node, whether it is running or not."""
        return ContainerHost(
            name=node.name,
            container=self.container(node.name),
            podman=self.podman,
            shared=((paths.cache(), CACHE_INSIDE),),
        )

    # creating

    def provision(self, *, say: Say) -> int:
        """Create and start what is missing. See `Provider.provision`."""
        self.demand_names()
        changed = self._ensure_network(say)
        changed += forwarding.allow(self.host, self._bridge(), self.belongings.mark)
        states = self.containers()
        missing = [n for n in self.profile.nodes if states.get(self.container(n.name)) != "running"]
        if missing:
            new = [name for n in missing if (name := self.container(n.name)) not in states]
            image = self.ensure_image(say) if new else ""  # stopped machines start without it
            self._ensure_volumes(new, states)
            with ThreadPoolExecutor(max_workers=4) as pool:
                jobs = [pool.submit(self._start, n, states.get(self.container(n.name)), image, say) for n in missing]
                changed += sum(job.result() for job in jobs)
        for node in missing:
            self._await(node)
        return changed

    def create(self, image: str, *, say: Say) -> None:
        """Create the network, volumes and containers of all nodes, but do not start them, so that their disks can be filled.

        Args:
            image: the machine image's name in podman.
            say: takes one line of progress.
        """
        self._ensure_network(say)
        self._ensure_volumes([self.container(node.name) for node in self.profile.nodes], [])
        for node in self.profile.nodes:
            self._podman("create", *self.run_flags(node), image, "/sbin/init", timeout=180)

    def demand_names(self) -> None:
        """Check that no other containers, volumes or networks have the lab's names; see `Belongings.demand_names`."""
        nodes = [self.container(node.name) for node in self.profile.nodes]
        self.belongings.demand_names(nodes, volumes_of(nodes), self.network)

    def _ensure_network(self, say: Say) -> int:
        if any(name_of(entry) == self.network for entry in self.belongings.listed("network", "ls")):
            return 0
        say(f"network {self.network} {self.profile.subnet}, gateway {self.profile.gateway}")
        self._podman(
            *("network", "create", *self.belongings.flags, "--subnet", self.profile.subnet),
            *("--gateway", self.profile.gateway, self.network),
        )
        return 1

    def _bridge(self) -> str:
        """The bridge of the lab's network."""
        mine = [entry for entry in self.belongings.listed("network", "ls") if name_of(entry) == self.network]
        return str(mine[0].get("network_interface", "")) if mine else ""

    def _ensure_volumes(self, new: Sequence[str], there: Iterable[str]) -> None:
        """Create the volumes of new machines with the lab's label, because `podman run -v` does not label them."""
        for volume in sorted(volumes_of(new) - self.belongings.volumes(list(there))):
            self._podman("volume", "create", *self.belongings.flags, volume)

    def has_image(self, name: str) -> bool:
        """Whether podman has an image of this name."""
        return self._podman("image", "exists", name, check=False).ok

    def storage(self) -> Path:
        """The folder in which podman keeps containers and volumes."""
        return Path(self._podman("info", "--format", "{{.Store.GraphRoot}}").stdout.strip())

    def ensure_image(self, say: Say) -> str:
        """Import the machine image into podman unless it is there; returns its name."""
        from stackbook.artifacts.resolver import Resolver

        resolver = Resolver.open(
            source=self.profile.source, versions=self.profile.versions, progress=lambda moment: say(str(moment))
        )
        rootfs = resolver.path("machine-rootfs")
        tag = f"localhost/stackbook/machine:{resolver.digest('machine-rootfs')[:16]}"
        if not self.has_image(tag):
            say("importing the machine image into podman (about 15 s, once)")
            self._podman("import", "--change", f"LABEL {LABEL}.image=1", str(rootfs), tag, timeout=600)
        return tag

    def _start(self, node: Node, state: str | None, image: str, say: Say) -> int:
        name = self.container(node.name)
        if state is not None:
            say(f"starting {node.name} again (it was {state})")
            if state == GONE:
                self._note_end(node)
            self._podman("unpause" if state == "paused" else "start", name)
            return 1
        say(f"starting {node.name} at {node.address}")
        self._podman("run", "-d", *self.run_flags(node), image, "/sbin/init", timeout=180)
        return 1

    def _note_end(self, node: Node) -> None:
        """Tell podman that a machine has ended, so that it can start it again with its data.

        conmon(8) starts a container's first process and writes its exit status into a file when it ends. If conmon is
        gone together with the container, that file is missing, and podman 4 refuses to stop, clean up or start the
        container. So this function writes it: 137, as for a killed process.

        Raises:
            StackbookError: podman still reports the container as running.
        """
        name = self.container(node.name)
        answer = self._podman("inspect", "--type", "container", "--format", "{{.Id}}", name)
        if EXITS.is_dir():
            (EXITS / answer.stdout.strip()).write_text("137", encoding="utf-8")
        ended = self._podman("container", "cleanup", name, check=False)  # the network and mounts that it still holds
        if self.containers().get(name) == GONE:
            said = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise StackbookError(
                f"the processes of {node.name} are gone, but podman still reports it as running: {said}",
                fix="run `stackbook reset`, then `stackbook run`",
            )

    def run_flags(self, node: Node) -> list[str]:
        """The podman flags for a node's container; see `container_flags`."""
        name, labels = self.container(node.name), self.belongings.flags
        return container_flags(node, name=name, labels=labels, network=self.network, mac=self.mac(node))

    def _await(self, node: Node) -> None:
        host = self.machine(node)

        def booted() -> bool:
            state = host.run(["systemctl", "is-system-running"], check=False, timeout=15).stdout.strip()
            return state in ("running", "degraded")

        def last() -> str:
            jobs = host.run(["systemctl", "list-jobs", "--no-legend"], check=False, timeout=15).stdout.strip()
            return f"systemd jobs: {jobs or 'none'}"

        def cause() -> str:
            return " | ".join(self._podman("logs", "--tail", "3", self.container(node.name), check=False).lines)

        until(
            booted,
            what=f"{node.name} to boot",
            timeout=60,
            every=0.3,
            last=last,
            cause=cause,
            tolerate=(StackbookError,),
        )

    # removing

    def remove_machines(self, *, say: Say) -> int:
        """Remove only the containers and volumes of this profile's nodes."""
        names = {self.container(n.name) for n in self.profile.nodes}
        mine = sorted(names & set(self.containers()))
        self._remove(mine, self.belongings.volumes(mine) & volumes_of(names), say)
        return len(mine)

    def remove(self, *, say: Say) -> int:
        """Remove the lab's containers and volumes; its network stays. Returns how many there were."""
        containers = list(self.containers())
        volumes = self.belongings.volumes(containers)
        self._remove(containers, volumes, say)
        return len(containers) + len(volumes)

    def delete(self, *, say: Say) -> int:
        """Remove the lab's containers, volumes and network. See `Provider.delete`."""
        removed = self.remove(say=say)
        networks = {name_of(entry): entry for entry in self.belongings.listed("network", "ls")}
        for network, entry in networks.items():
            say(f"removing network {network}")
            self._podman("network", "rm", network)  # without -f, which would also remove containers of others
            self._remove_bridge(str(entry.get("network_interface", "")))
        return removed + len(networks) + forwarding.remove(self.host, self.belongings.mark)

    def _remove(self, containers: Sequence[str], volumes: Iterable[str], say: Say) -> None:
        for container in containers:
            say(f"removing {container}")
            self._remove_container(container)
        for volume in sorted(volumes):
            self._remove_volume(volume)

    def _remove_container(self, container: str) -> None:
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
            answer = self._podman("rm", "-f", "-v", "-t", "0", container, check=False, timeout=180)
            said = answer.stderr.strip()
            if not answer.ok and SLOW_TO_END not in said:
                raise CommandFailed(answer)
            return answer.ok

        until(removed, what=f"the processes of {container} to end", timeout=120, every=1, last=lambda: said)

    def _remove_bridge(self, interface: str) -> None:
        """Remove the bridge of a network that is gone: podman leaves it where the network's set-up failed half-way.

        It is the lab's if it has the gateway's address, or none, and nothing is attached to it.
        """
        if not interface:
            return
        bridges = facts.parse_json(self.host.run(["ip", "-j", "address", "show", "type", "bridge"], check=False).stdout)
        link = next((each for each in bridges if each.get("ifname") == interface), None)
        if link is None:
            return
        addresses = {str(each.get("local")) for each in link.get("addr_info", []) if each.get("family") == "inet"}
        attached = self.host.run(["ip", "-j", "link", "show", "master", interface], check=False).stdout.strip()
        if addresses <= {self.profile.gateway} and attached in ("", "[]"):
            self.host.run(["ip", "link", "delete", interface, "type", "bridge"], check=False)

    def _remove_volume(self, volume: str) -> None:
        """Remove an unused volume; podman may report a missing lock although it has removed the volume."""
        answer = self._podman("volume", "rm", volume, check=False)
        if not answer.ok and volume in self._podman("volume", "ls", "--format", "{{.Name}}").lines:
            self._podman("volume", "rm", volume)

    def collect_logs(self, folder: Path) -> None:
        """Save the journal of each machine and the output of `podman ps`."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            collect_journals(self.machines(), folder)
            (folder / "podman-ps.txt").write_text(self._podman("ps", "-a", check=False).stdout, encoding="utf-8")
        except (CommandFailed, WaitTimeout, StackbookError, subprocess.SubprocessError) as error:
            (folder / "collect-error.txt").write_text(str(error), encoding="utf-8")


def volumes_of(containers: Iterable[str]) -> set[str]:
    """The names of these containers' volumes."""
    return {f"{container}-{volume}" for container in containers for volume in VOLUMES}


def _state(entry: Mapping[str, Any]) -> str:
    """The state of one entry of `podman ps --format json`; see `Embedded.containers`."""
    state = str(entry["State"])
    with_process = state in ("running", "paused", "stopping")
    return GONE if with_process and not belongs(int(entry["Pid"]), str(entry["Id"])) else state
