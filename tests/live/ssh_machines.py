"""Machines that have nothing of the lab's: Debian with sshd and a user with sudo, and a jump host that is the only way to them.

They are containers with a network of their own; everything carries the label `stackbook-test`, and ends with the block.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts.package_registries import MASKED, debian_sources
from stackbook.core.waiting import until

LABEL = "stackbook-test=ssh"
NETWORK = "sbtest-ssh"
IMAGE = "localhost/sbtest-ssh:1"
NET = "192.168.92"
USER = "learner"
GATE = "gate"
ADDRESSES = {"plain-one": f"{NET}.3", "plain-two": f"{NET}.4", GATE: f"{NET}.9"}
# What a machine has after its installation, and nothing that the lab needs.
PACKAGES = "systemd,systemd-sysv,dbus,openssh-server,sudo,iproute2,ca-certificates,kmod,procps"
_CUSTOMIZE = f"""set -e
root=$1
chroot "$root" useradd -m -s /bin/bash {USER}
printf '%s\\n' '{USER} ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/{USER}"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/resolv.conf" "$root/etc/hostname"
printf '127.0.0.1 localhost\\n' > "$root/etc/hosts"
: > "$root/etc/machine-id"
for unit in {" ".join(MASKED)}; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
"""


def _podman(*words: str, timeout: float = 120, check: bool = True) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0 or not check, f"podman {words[0]}: {done.stderr}"
    return done.stdout


def _removed() -> bool:
    """Remove the containers; whether none is left. podman waits only 5 s for their processes to end."""
    listed = ("ps", "-aq", "--filter", f"label={LABEL}")
    for name in _podman(*listed).split():
        _podman("rm", "-f", "-v", "-t", "0", name, check=False)
    return not _podman(*listed).strip()


@dataclass(frozen=True)
class Machines:
    """The machines, while they run.

    Attributes:
        key: the private key of the user on all of them.
        known_hosts: the keys of all three.
    """

    key: Path
    known_hosts: Path

    def ids(self) -> set[str]:
        """The ids of their containers."""
        return set(_podman("ps", "-aq", "--no-trunc", "--filter", f"label={LABEL}").split())

    def run(self, name: str, *words: str, timeout: float = 60) -> str:
        """What a command as root on a machine prints; not by SSH."""
        return _podman("exec", name, *words, timeout=timeout)

    def sh(self, name: str, script: str) -> str:
        """The same of a shell script."""
        return self.run(name, "sh", "-c", script)

    def login(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """A login by SSH straight from this host."""
        words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=yes",
                 "-o", f"UserKnownHostsFile={self.known_hosts}", "-i", str(self.key), *options]  # fmt: skip
        return subprocess.run([*words, f"{USER}@{ADDRESSES[name]}", "true"], capture_output=True, text=True, timeout=30,
                              check=False)  # fmt: skip


def _image(folder: Path) -> None:
    hook, target = folder / "customize.sh", folder / "root.tar"
    hook.write_text(_CUSTOMIZE)
    argv = ["unshare", "--mount", "--", "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}",
            '--aptopt=Apt::Install-Recommends "false"', f'--customize-hook=sh {hook} "$1"', "bookworm", str(target)]  # fmt: skip
    if sources := debian_sources("bookworm"):
        listed = folder / "sources.list"
        listed.write_text("".join(f"{line}\n" for line in sources))
        argv.append(str(listed))
    made = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr[-3000:]
    _podman("import", "--change", f"LABEL {LABEL}", str(target), IMAGE, timeout=300)
    target.unlink()


def _start(name: str) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the host may not allow more
    flags = ["--privileged", "--systemd=false", "--cgroupns=private", "-e", "container=podman", "--stop-signal=SIGRTMIN+3",
             "--no-hosts", "--http-proxy=false", "--network", NETWORK, "--ip", ADDRESSES[name], "--ulimit", f"nofile={files}:{files}",
             "--ulimit", "nproc=32768:32768",
             "--tmpfs", "/run:rw,mode=755", "--tmpfs", "/run/lock:rw", "--tmpfs", "/tmp:rw,exec,mode=1777"]  # fmt: skip
    if name != GATE:  # overlay on overlay does not work
        flags += ["-v", "/var/lib/containerd", "-v", "/var/lib/kubelet"]
    if Path("/lib/modules").is_dir():
        flags += ["-v", "/lib/modules:/lib/modules:ro"]
    if Path("/dev/kmsg").exists():
        flags += ["--device", "/dev/kmsg"]
    _podman("run", "-d", "--name", name, "--hostname", name, "--label", LABEL, *flags, IMAGE, "/sbin/init")


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Two machines and their jump host, while the block runs."""
    key, known = folder / "key", folder / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    made = Machines(key, known)
    try:
        _image(folder)
        _podman("network", "create", "--label", LABEL, "--subnet", f"{NET}.0/24", "--gateway", f"{NET}.1", NETWORK)
        lines = []
        for name, address in ADDRESSES.items():
            _start(name)
            until(lambda name=name: made.sh(name, "systemctl is-system-running || true").strip() in ("running", "degraded"),  # type: ignore[misc]
                  what=f"{name} to boot", timeout=60, last=lambda name=name: _podman("logs", "--tail", "5", name))  # type: ignore[misc]  # fmt: skip
            allowed = USER if name == GATE else f"{USER}@{ADDRESSES[GATE]}"
            public = key.with_suffix(".pub").read_text().strip()
            made.sh(name, f"ssh-keygen -A; echo 'AllowUsers {allowed}' > /etc/ssh/sshd_config.d/test.conf; "
                    f"install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh; echo '{public}' > /home/{USER}/.ssh/authorized_keys; "
                    f"chown {USER} /home/{USER}/.ssh/authorized_keys; systemctl reset-failed ssh; "
                    "systemctl restart ssh || { journalctl -u ssh -n 20 --no-pager >&2; exit 1; }")  # fmt: skip
            host_key = made.run(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
            lines.append(f"{address} {' '.join(host_key)}\n")
        known.write_text("".join(lines))
        yield made
    finally:
        until(_removed, what="the machines to end", timeout=120, every=1)
        for name in _podman("network", "ls", "-q", "--filter", f"label={LABEL}").split():
            _podman("network", "rm", name)
        for name in _podman("images", "-q", "--filter", f"label={LABEL}").split():
            _podman("rmi", name)
