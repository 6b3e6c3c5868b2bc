"""Embedded machines: privileged podman containers on this host that run systemd, at the guide's addresses.

The flags were found by trial on hosts with cgroup v1, hybrid and v2; docs/machines.md explains each one.
Everything created here has the label `stackbook.lab=<lab>`; nothing without it is ever changed.
"""

from __future__ import annotations

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
from stackbook.machines.identity import own_mac
from stackbook.machines.providers import forwarding, podman_removal
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.belongings import LABEL, Belongings, name_of
from stackbook.machines.providers.container_flags import CACHE_INSIDE, VOLUMES, container_flags
from stackbook.machines.providers.ssh import collect_journals
from stackbook.machines.transports import ContainerHost, Host, LocalHost, belongs

GONE = "running according to podman, but without a process"
_HIERARCHY = ("stat", "-f", "-c", "%T", "/sys/fs/cgroup")
"""Prints cgroup2fs for cgroup v2. https://kubernetes.io/docs/concepts/architecture/cgroups/#check-cgroup-version"""
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
        flags: list[str] = []
        if self.host.run(_HIERARCHY, check=False).stdout.strip() != "cgroup2fs":
            # runc, because crun refuses a hybrid hierarchy; cgroupfs, because this host may not run systemd.
            flags += ["--cgroup-manager=cgroupfs", "--runtime=runc"]
        elif not Path("/run/systemd/system").exists():
            flags += ["--cgroup-manager=cgroupfs"]
        return ("podman", *flags)

    def _podman(self, *args: str, check: bool = True, timeout: float = 120.0) -> Result:
        """Run podman.

        Raises:
            HostUnfit: it failed because podman does not work at all.
            CommandFailed: it failed for another reason.
        """
        result = self.host.run([*self.podman, *args], check=False, timeout=timeout)
        if check and not result.ok:
            self._demand_podman()
            raise CommandFailed(result)
        return result

    def _demand_podman(self) -> None:
        result = self.host.run(["podman", "info", "--format", "json"], check=False, timeout=60)
        if not result.ok:
            last = (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise HostUnfit(
                f"podman does not work on this host: {last}", fix="run `podman info` and correct what it reports"
            )

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
            listed = self.belongings.listed("ps", "-a", "--no-trunc")
            running = {name_of(entry): entry for entry in listed if _state(entry) == "running"}
            there = [(n, entry) for n in self.profile.nodes if (entry := running.get(self.container(n.name)))]
            self._known = {n.name: self.machine(n).running_as(int(entry["Pid"])) for n, entry in there}
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
            every=0.1,
            last=last,
            cause=cause,
            tolerate=(StackbookError,),
        )

    # removing

    def remove_machines(self, *, say: Say) -> int:
        """Remove only the containers and volumes of this profile's nodes."""
        names = {self.container(n.name) for n in self.profile.nodes}
        mine = sorted(names & set(self.containers()))
        podman_removal.remove(self._podman, mine, self.belongings.volumes(mine) & volumes_of(names), say)
        return len(mine)

    def remove(self, *, say: Say) -> int:
        """Remove the lab's containers and volumes; its network stays. Returns how many there were."""
        containers = list(self.containers())
        volumes = self.belongings.volumes(containers)
        podman_removal.remove(self._podman, containers, volumes, say)
        return len(containers) + len(volumes)

    def delete(self, *, say: Say) -> int:
        """Remove the lab's containers, volumes and network. See `Provider.delete`."""
        removed = self.remove(say=say)
        networks = {name_of(entry): entry for entry in self.belongings.listed("network", "ls")}
        for network, entry in networks.items():
            say(f"removing network {network}")
            self._podman("network", "rm", network)  # without -f, which would also remove containers of others
            podman_removal.remove_bridge(self.host, str(entry.get("network_interface", "")), self.profile.gateway)
        return removed + len(networks) + forwarding.remove(self.host, self.belongings.mark)

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
