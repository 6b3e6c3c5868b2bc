"""Virtual machines that the lab creates on this host under QEMU, with a kernel of their own, reached by SSH.

This is the guide's own setting: one machine is installed, and copied for each node. Everything is in the lab's state folder, and
the network's links and rules carry the lab's mark; a reset removes both.
"""

from __future__ import annotations

import ipaddress
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stackbook.config.profile import Node, Profile
from stackbook.core import paths, private
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.machines.identity import own_mac, own_uuid
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.belongings import Belongings
from stackbook.machines.providers.ssh import collect_journals
from stackbook.machines.ssh_host import SSHHost
from stackbook.machines.transports import Host, LocalHost
from stackbook.machines.virtual import disks, qemu
from stackbook.machines.virtual.network import Network

BOOT_SECONDS = {"kvm": 120.0, "tcg": 420.0}
"""The deadline for a machine's first answer; measured with tcg on two idle processors: 20 s, on busy ones 90 s."""
_LONGEST_SOCKET = 107  # unix(7)


@dataclass
class VirtualMachines:
    """The provider of the target `vm`.

    Args:
        profile: target `vm`.
        host: this host; a strict fake in unit tests.
    """

    profile: Profile
    host: Host = field(default_factory=LocalHost)

    @property
    def folder(self) -> Path:
        """The folder of the machines' files."""
        return paths.state(self.profile.lab) / "vm"

    @property
    def key(self) -> Path:
        """The private key of root on the machines."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """The machines' host keys."""
        return self.folder / "known_hosts"

    @cached_property
    def network(self) -> Network:
        """The machines' network."""
        mark = Belongings(self.profile.lab, self.host.run, str(paths.states() / self.profile.lab)).mark
        return Network(self.host, mark, self.profile.subnet, self.profile.gateway)

    def machine(self, node: Node, acceleration: str = "tcg") -> qemu.VirtualMachine:
        """The virtual machine of one node, whether it runs or not."""
        number = self.profile.nodes.index(node)
        return qemu.VirtualMachine(
            folder=self.folder / node.name,
            name=f"{self.profile.lab}-{node.name}",
            mac=node.mac or own_mac(node.address),
            uuid=own_uuid(self.profile.lab, node.name),
            memory=self.profile.vm_memory,
            processors=self.profile.vm_processors,
            acceleration=acceleration,
            tap=self.network.tap(number),
        )

    def demand(self) -> None:
        """Refuse a host whose paths are too long for the machines' sockets; changes nothing.

        Raises:
            InputError: see above.
        """
        for node in self.profile.nodes:
            path = self.machine(node).console
            if len(str(path)) > _LONGEST_SOCKET:
                raise InputError(
                    f"the path of a machine's console is longer than {_LONGEST_SOCKET} characters: {path}",
                    fix="set XDG_STATE_HOME to a folder with a shorter path",
                )

    def provision(self, *, say: Say) -> int:
        """Create and start what is missing. See `Provider.provision`."""
        self.demand()
        changed = self.network.ensure(len(self.profile.nodes))
        asleep = [node for node in self.profile.nodes if not self.machine(node).process()]
        if asleep:
            self._ensure_keys()
            template = self.template(say)
            acceleration = self.acceleration(template)
            for node in asleep:
                self._prepare(node, template)
                say(f"starting {node.name} at {node.address} ({acceleration})")
                changed += self.machine(node, acceleration).start(self.host, template)
            with ThreadPoolExecutor(max_workers=4) as pool:
                for job in [pool.submit(self.wait_booted, node, BOOT_SECONDS[acceleration]) for node in asleep]:
                    job.result()
        return changed

    def template(self, say: Say) -> disks.Template:
        """The template of the machines' disks, which is made if it is not there."""
        from stackbook.artifacts.resolver import Resolver

        resolver = Resolver.open(
            source=self.profile.source, versions=self.profile.versions, progress=lambda moment: say(str(moment))
        )
        rootfs = resolver.path("vm-rootfs")
        folder = self.folder / f"template-{resolver.digest('vm-rootfs')[:16]}"
        if not disks.Template(folder).complete:
            say("making the template of the machines' disks (about 10 s, once)")
        return disks.make_template(self.host, rootfs, folder)

    def acceleration(self, template: disks.Template) -> str:
        """`kvm` or `tcg`; what was found is kept, because the probe takes seconds."""
        wanted, kept = self.profile.vm_acceleration, self.folder / "acceleration"
        if wanted != "auto":
            return qemu.acceleration(self.host, wanted, template, self.folder)
        if not kept.is_file():
            kept.write_text(qemu.acceleration(self.host, wanted, template, self.folder), encoding="utf-8")
        return kept.read_text(encoding="utf-8").strip()

    def _ensure_keys(self) -> None:
        """Make root's key, and the host key of each machine, so that its first connection can be strict."""
        private.folder(self.folder)
        if not self.key.exists():
            self._keygen(self.key)
        lines = []
        for node in self.profile.nodes:
            path = private.folder(self.folder / node.name) / "host_key"
            if not path.exists():
                self._keygen(path)
            kind, text = path.with_suffix(".pub").read_text(encoding="utf-8").split()[:2]
            lines.append(f"{node.address} {kind} {text}\n")
        private.write(self.known_hosts, "".join(lines))

    def _keygen(self, path: Path) -> None:
        self.host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stackbook", "-f", str(path)])

    def _prepare(self, node: Node, template: disks.Template) -> None:
        """Write the machine's seed, and copy the template's disk for it."""
        machine = self.machine(node)
        prefix = ipaddress.ip_network(self.profile.subnet).prefixlen
        host_key = machine.folder / "host_key"
        disks.write_seed(
            machine.seed,
            {
                "etc/network/interfaces": (disks.interfaces(node.address, prefix, self.profile.gateway), 0o644),
                "root/.ssh/authorized_keys": (self.key.with_suffix(".pub").read_text(encoding="utf-8"), 0o600),
                "etc/ssh/ssh_host_ed25519_key": (Secret(host_key.read_text(encoding="utf-8")), 0o600),
                "etc/ssh/ssh_host_ed25519_key.pub": (host_key.with_suffix(".pub").read_text(encoding="utf-8"), 0o644),
            },
        )
        disks.copy(self.host, template, machine.disk)

    def wait_booted(self, node: Node, seconds: float) -> None:
        """Wait until a machine answers by SSH and has booted.

        Raises:
            WaitTimeout: it does not, with the last lines of its console.
        """
        machine, host = self.machine(node), self.host_of(node)
        said = ""

        def booted() -> bool:
            nonlocal said
            if not machine.process():
                raise StackbookError(f"the virtual machine {node.name} has ended: {machine.last_lines()}")
            try:
                said = host.run(["systemctl", "is-system-running"], check=False, timeout=20).stdout.strip()
            except StackbookError as error:
                said = error.message
            return said in ("running", "degraded")

        until(
            booted, what=f"{node.name} to boot", timeout=seconds, every=1.0, last=lambda: said,
            cause=lambda: f"console: {machine.last_lines()}",
        )  # fmt: skip

    def host_of(self, node: Node) -> SSHHost:
        """The host of one node, whether it is running or not."""
        return SSHHost(name=node.name, address=node.address, key=self.key, known_hosts=self.known_hosts, strict=True)

    def machines(self) -> dict[str, Host]:
        """The machines that run, in the profile's order."""
        return {node.name: self.host_of(node) for node in self.profile.nodes if self.machine(node).process()}

    def stop(self, *, say: Say) -> int:
        """Switch all running machines off at the same time; returns how many there were."""
        running = [node for node in self.profile.nodes if self.machine(node).process()]
        for node in running:
            say(f"stopping {node.name}")
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda node: self.machine(node).stop(), running))
        return len(running)

    def delete(self, *, say: Say) -> int:
        """End the machines and remove their files and their network. See `Provider.delete`."""
        removed = 0
        for node in self.profile.nodes:
            if (machine := self.machine(node)).process():
                say(f"removing {machine.name}")
                machine.stop(0)  # its disk goes as well
                removed += 1
        for number in qemu.left(self.folder):
            self.host.run(["kill", "-KILL", str(number)], check=False)
            removed += 1
        removed += self.network.remove()
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
            removed += 1
        return removed

    def collect_logs(self, folder: Path) -> None:
        """Save the journal and the console of each machine."""
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.profile.nodes:
            machine = self.machine(node)
            if machine.console_log.is_file():
                text = machine.console_log.read_text(encoding="utf-8", errors="replace")
                lines = "".join(f"{qemu.clean(line)}\n" for line in text.splitlines())
                (folder / f"{node.name}-console.log").write_text(lines, encoding="utf-8")
        try:
            collect_journals(self.machines(), folder)
        except StackbookError as error:
            (folder / "collect-error.txt").write_text(str(error), encoding="utf-8")
