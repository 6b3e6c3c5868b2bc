"""One virtual machine: a process of QEMU, told by the folder of its files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.core.errors import HostUnfit, StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines.transports import Host
from stackbook.machines.virtual.disks import LABEL, Template

PROGRAM = "qemu-system-x86_64"
SEED = "seed"
"""The serial number of the seed's disk, by which the machine finds it."""
AGENT = "org.qemu.guest_agent.0"
_KERNEL = f"root=LABEL={LABEL} rw console=ttyS0 net.ifnames=0"
_PROBE_SECONDS = 15


@dataclass(frozen=True)
class VirtualMachine:
    """One machine.

    Args:
        folder: its files: disk, seed, sockets, the log of its console.
        name: the name of the process, for `ps`.
        mac: the MAC address of its interface.
        uuid: its product_uuid.
        memory: MiB.
        processors: how many.
        acceleration: `kvm` or `tcg`.
        tap: the tap device of its interface; without one, its network has nobody else on it.
    """

    folder: Path
    name: str
    mac: str
    uuid: str
    memory: int
    processors: int
    acceleration: str
    tap: str = ""

    @property
    def disk(self) -> Path:
        """Its disk."""
        return self.folder / "disk.qcow2"

    @property
    def seed(self) -> Path:
        """The archive with its address and keys."""
        return self.folder / "seed.tar"

    @property
    def console_log(self) -> Path:
        """Everything that its console has shown."""
        return self.folder / "console.log"

    @property
    def console(self) -> Path:
        """The socket of its serial console."""
        return self.folder / "console.sock"

    @property
    def agent(self) -> Path:
        """The socket of the guest agent."""
        return self.folder / "agent.sock"

    def flags(self, template: Template, kernel_options: str = "") -> list[str]:
        """The command that starts it."""
        network = f"tap,id=net,ifname={self.tap},script=no,downscript=no" if self.tap else "user,id=net,restrict=on"
        return [
            PROGRAM, "-name", self.name, "-machine", "pc", "-nodefaults", "-no-user-config", "-display", "none",
            "-accel", "tcg,thread=multi" if self.acceleration == "tcg" else self.acceleration,
            "-cpu", "max", "-smp", str(self.processors), "-m", str(self.memory), "-uuid", self.uuid,
            "-kernel", str(template.kernel), "-initrd", str(template.initrd), "-append", f"{_KERNEL} {kernel_options}".strip(),
            # The host's page cache outlives the process of QEMU, which is what these machines' disks have to outlive.
            "-drive", f"file={self.disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap",
            "-drive", f"file={self.seed},if=none,id={SEED},format=raw,readonly=on",
            "-device", f"virtio-blk-pci,drive={SEED},serial={SEED}",
            "-netdev", network, "-device", f"virtio-net-pci,netdev=net,mac={self.mac}", "-device", "virtio-rng-pci",
            "-device", "virtio-serial", "-chardev", f"socket,id=agent,path={self.agent},server=on,wait=off",
            "-device", f"virtserialport,chardev=agent,name={AGENT}",
            "-chardev", f"socket,id=console,path={self.console},server=on,wait=off,logfile={self.console_log}",
            "-serial", "chardev:console", "-qmp", f"unix:{self.folder / 'qmp.sock'},server=on,wait=off",
            "-pidfile", str(self.folder / "pid"), "-daemonize",
        ]  # fmt: skip

    def start(self, host: Host, template: Template, kernel_options: str = "") -> bool:
        """Start it unless it runs; returns whether it was started.

        Args:
            host: this host.
            template: where its kernel is.
            kernel_options: what to add to the kernel's command line, such as `systemd.unit=rescue.target`.
        """
        if self.process():
            return False
        host.run(self.flags(template, kernel_options), timeout=60)
        return True

    def process(self) -> int:
        """The number of its process; 0 if it does not run. A number that another process has by now does not count."""
        try:
            pid = int((self.folder / "pid").read_text(encoding="utf-8"))
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if os.fsencode(self.disk) in b" ".join(words) and b"qemu" in words[0] else 0

    def stop(self, seconds: float = 30) -> None:
        """Press the power button, and end the process if the machine has not switched itself off in time."""
        if not self.process():
            return
        if seconds:
            with contextlib.suppress(OSError, StackbookError, ValueError):
                self._command("system_powerdown")
            self._ended(seconds)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if pid := self.process():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                self._ended(5)
        if self.process():
            raise StackbookError(f"the virtual machine {self.name} still runs", fix="stackbook reset, again")

    def _ended(self, seconds: float) -> None:
        """Give its process this time to end."""
        with contextlib.suppress(WaitTimeout):
            until(lambda: not self.process(), what=f"{self.name} to end", timeout=seconds, every=0.1)

    def last_lines(self, count: int = 4) -> str:
        """The last lines of its console."""
        try:
            text = self.console_log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "its console has shown nothing"
        lines = [clean(line) for line in text.splitlines()]
        return " | ".join([line for line in lines if line][-count:]) or "its console has shown nothing"

    def _command(self, name: str) -> None:
        """Give QEMU a command (https://www.qemu.org/docs/master/interop/qmp-spec.html)."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(self.folder / "qmp.sock"))
            stream = channel.makefile("rw", encoding="utf-8")
            stream.readline()  # its greeting
            for command in ("qmp_capabilities", name):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                if "error" in answer:
                    raise StackbookError(f"QEMU refused {command}: {answer['error'].get('desc')}")


def clean(line: str) -> str:
    r"""A line of a console without the sequences that set colours and move the cursor.

    >>> clean("[\x1b[0;32m  OK  \x1b[0m] Reached target\r")
    '[  OK  ] Reached target'
    """
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]", "", line).strip()


def acceleration(host: Host, wanted: str, template: Template, folder: Path) -> str:
    """`kvm` where it can start the template's kernel, else `tcg`, which needs no help by the processor and is slower.

    /dev/kvm alone proves nothing: some hosts have it, and ordinary kernels do not start there. So the kernel is tried.

    Args:
        host: this host.
        wanted: `auto`, `kvm` or `tcg`.
        template: its kernel is started.
        folder: a folder for the probe's files.

    Raises:
        HostUnfit: `kvm` is wanted and does not work.
    """
    if wanted == "tcg":
        return "tcg"
    works, reason = _kvm(host, template, folder)
    if wanted == "kvm" and not works:
        raise HostUnfit(f"KVM does not work on this host: {reason}", fix="vm_acceleration: tcg")
    return "kvm" if works else "tcg"


def _kvm(host: Host, template: Template, folder: Path) -> tuple[bool, str]:
    """Whether a kernel starts with KVM, and if not, why."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "/dev/kvm does not exist, or may not be opened"
    log, pid = folder / "kvm.log", folder / "kvm.pid"
    log.unlink(missing_ok=True)
    answer = host.run(
        [PROGRAM, "-machine", "pc", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-cpu", "max", "-m", "256",
         "-kernel", str(template.kernel), "-append", "console=ttyS0 panic=-1", "-no-reboot", "-serial", f"file:{log}",
         "-pidfile", str(pid), "-daemonize"], check=False, timeout=30)  # fmt: skip
    if not answer.ok:
        return False, (answer.stderr.strip().splitlines() or ["QEMU does not start"])[-1]
    try:
        until(lambda: "Linux version" in log.read_text(encoding="utf-8", errors="replace"), what="a kernel to start with KVM",
              timeout=_PROBE_SECONDS, every=0.2, tolerate=(OSError,))  # fmt: skip
    except StackbookError:
        return False, f"a kernel printed nothing within {_PROBE_SECONDS} s"
    finally:
        _end_probe(pid, log)
    return True, ""


def _end_probe(pid: Path, log: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        number = int(pid.read_text(encoding="utf-8"))
        if os.fsencode(log) in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)
    pid.unlink(missing_ok=True)


def left(folder: Path, processes: Path = Path("/proc")) -> list[int]:
    """The processes of QEMU whose files are below a folder, also those whose pid file is gone."""
    found = []
    for entry in processes.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words: Sequence[bytes] = (entry / "cmdline").read_bytes().split(b"\0")
            if b"qemu" in words[0] and any(os.fsencode(f"{folder}/") in word for word in words):
                found.append(int(entry.name))
    return sorted(found)
