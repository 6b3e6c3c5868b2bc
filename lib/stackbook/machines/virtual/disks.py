"""The disks of virtual machines: one template, as a person would install it once, and a copy of it for each machine.

A copy is a qcow2 overlay, as VMware's and VirtualBox's linked clones are: it holds only what differs from the template. So all
copies have the template's host name and machine-id, until chapter 01 corrects them. What they must have of their own from the
first start on (the address, SSH's keys) is in a small archive on a second disk, the seed, which a unit of the template unpacks.
"""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stackbook.core import private
from stackbook.core.redact import Secret
from stackbook.machines.transports import Host

LABEL = "stackbook"
"""The label of the template's file system, by which the kernel finds it."""
TEMPLATE_NAME = "snapshot"
"""The host name of the template, and of its copies until each gets its own."""
DISK = "16G"
_FSTAB = f"LABEL={LABEL} / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n"


@dataclass(frozen=True)
class Template:
    """The files from which machines start.

    Attributes:
        folder: contains `disk.raw`, `kernel` and `initrd`.
    """

    folder: Path

    @property
    def disk(self) -> Path:
        """The disk, which no machine changes."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel on that disk."""
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        """The kernel's first root file system, with the modules for the disk."""
        return self.folder / "initrd"

    @property
    def complete(self) -> bool:
        """Whether it has been made."""
        return self.disk.is_file()


def make_template(host: Host, rootfs: Path, folder: Path) -> Template:
    """Make a template of a root file system with a kernel, unless it is there.

    Args:
        host: this host.
        rootfs: the root file system, a tar.
        folder: the template's folder; it appears in one step, when everything in it is complete.
    """
    made = Template(folder)
    if made.complete:
        return made
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    root = part / "root"
    private.folder(part)
    root.mkdir(mode=0o755)
    try:
        host.run(["tar", "-x", "-f", str(rootfs), "-C", str(root), "--numeric-owner"], timeout=300)
        (root / "etc/machine-id").write_text(f"{secrets.token_hex(16)}\n", encoding="utf-8")
        (root / "etc/hostname").write_text(f"{TEMPLATE_NAME}\n", encoding="utf-8")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
        (root / "etc/fstab").write_text(_FSTAB, encoding="utf-8")
        for pattern, name in (("vmlinuz-*", "kernel"), ("initrd.img-*", "initrd")):
            newest = max((root / "boot").glob(pattern))
            shutil.copyfile(newest, part / name)
        host.run(["truncate", "-s", DISK, str(part / "disk.raw")])
        host.run(["mkfs.ext4", "-q", "-L", LABEL, "-d", str(root), str(part / "disk.raw")], timeout=300)
        shutil.rmtree(root)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def copy(host: Host, template: Template, target: Path) -> None:
    """Make a copy of the template's disk, unless it is there."""
    if not target.exists():
        host.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(template.disk), "-F", "raw", str(target)])


def interfaces(address: str, prefix: int, gateway: str) -> str:
    """The machine's /etc/network/interfaces, as the guide writes it, with a comment on a line of its own."""
    return (
        "auto lo\niface lo inet loopback\n\n# a fixed address, because certificates and the other nodes refer to it\n"
        f"auto eth0\niface eth0 inet static\naddress {address}/{prefix}\ngateway {gateway}\n"
    )


def write_seed(target: Path, files: Mapping[str, tuple[str | Secret, int]]) -> None:
    """Write a seed.

    Args:
        target: the archive; only root can read it, because it holds a private key.
        files: path on the machine without the first slash → (text, mode).
    """
    target.unlink(missing_ok=True)
    target.touch(0o600)
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (text, mode) in files.items():
            content = (text.reveal() if isinstance(text, Secret) else text).encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
