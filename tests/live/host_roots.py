"""Other hosts than this one: the root file system of another release, in which `make lab` runs as on a machine just installed.

Processes have mounts of their own and share this kernel, its network and its processors; podman and its storage are the other
release's. Everything ends with the block: the lab is taken away first, then the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labtools import ROOT, Done
from stackbook.core import paths

# What a release has after its installation, and what brings a user to the two commands.
PACKAGES = "apt,ca-certificates,make,git,sudo,procps,python3,iproute2"
RELEASES = {
    "debian-13": ("trixie", "http://deb.debian.org/debian", "main", "debian-archive-keyring.gpg"),
    "ubuntu-24.04": ("noble", "http://archive.ubuntu.com/ubuntu", "main universe", "ubuntu-archive-keyring.gpg"),
}
# A small lab on such a host.
PROFILE = """\
target: embedded
lab: sbhosts
nodes:
  - {name: one, address: 192.168.93.3}
  - {name: two, address: 192.168.93.4}
subnet: 192.168.93.0/24
gateway: 192.168.93.2
"""
_ENTER = """\
set -e
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root" # so that / is a mount there, as on every host
for part in proc sys dev; do mount --rbind "/$part" "$root/$part"; done
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/netns" "$root/root/cache" "$root/root/checkout"
mount --bind "$CACHE" "$root/root/cache"
mount --bind "$CHECKOUT" "$root/root/checkout"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE; do
  eval "file=\\${$name:-}"
  if [ -n "$file" ] && [ -f "$file" ]; then mkdir -p "$root$(dirname "$file")"; cp -L "$file" "$root$file"; fi
done
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Root:
    """A root file system of another release."""

    folder: Path
    checkout: Path

    def run(self, script: str, *, timeout: float = 1800, env: Mapping[str, str] | None = None) -> Done:
        """Run a shell script in it, from the checkout."""
        enter = ["unshare", "--mount", "--", "sh", "-c", _ENTER, "enter", str(self.folder)]
        inside = {"HOME": "/root", "STACKBOOK_CACHE": "/root/cache", "STACKBOOK_STATE": "/root/state",
                  "STACKBOOK_RUNS": "/root/runs", "DEBIAN_FRONTEND": "noninteractive",
                  "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
        outer = {**os.environ, "CACHE": str(paths.cache()), "CHECKOUT": str(self.checkout), **inside, **(env or {})}
        done = subprocess.run([*enter, "sh", "-c", f"cd /root/checkout && {script}"], env=outer, timeout=timeout,
                              capture_output=True, text=True, check=False)  # fmt: skip
        return Done(done.returncode, done.stdout + done.stderr)


@contextmanager
def root(release: str, folder: Path) -> Iterator[Root]:
    """A release just installed, with a fresh clone of this checkout, while the block runs."""
    suite, mirror, components, keyring = RELEASES[release]
    target, checkout = folder / release, folder / f"{release}-checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    keys = Path("/usr/share/keyrings") / keyring
    trusted = f"signed-by={keys}" if keys.exists() else "trusted=yes"  # Debian 12 has no package of Ubuntu's keys
    sources = [f"deb [{trusted}] {mirror} {part} {components}" for part in (suite, f"{suite}-updates")]
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", suite, str(target), *sources]
    made = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr[-3000:]
    try:
        yield Root(target, checkout)
    finally:
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        assert not [path for path in mounted if path.startswith(f"{target}/")], "something of it is still mounted here"
        shutil.rmtree(target)
        shutil.rmtree(checkout)
