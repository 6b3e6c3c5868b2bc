"""Hosts that are not like this one: each either carries the lab, or is refused with the fix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from host_roots import PROFILE
from labtools import ROOT, Done, keep_evidence
from stackbook.core import paths

pytestmark = [pytest.mark.live, pytest.mark.more]

SPACE = "sbhosts"


@dataclass(frozen=True)
class Host:
    """Another host: a network namespace of its own, and mounts, variables and habits as each test wants them.

    Attributes:
        checkout: a checkout of this commit.
        env: variables that differ from this process's.
        prefix: words before each command, which bring it there.
    """

    checkout: Path
    env: Mapping[str, str]
    prefix: tuple[str, ...]

    def stackbook(self, *args: str, timeout: float = 900) -> Done:
        """Run `stackbook …` there; the library is that of the checkout."""
        library = str(self.checkout / "lib")
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "stackbook", *args], cwd=self.checkout, timeout=timeout, check=False,
            capture_output=True, env={**os.environ, "PYTHONPATH": library, **self.env},
        )  # fmt: skip
        return Done(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))

    def carries_the_lab(self, last: str) -> str:
        """Chapters 00 to `last`, and a reset that finds the host as it was; returns what the run said."""
        profile = self.checkout / "parameters" / "here.yaml"
        profile.write_text(PROFILE)
        try:
            done = self.stackbook("run", "--profile", str(profile), "--to", last)
            if done.status:
                keep_evidence(done.output)
            assert done.status == 0, done.output[-5000:]
        finally:
            gone = self.stackbook("reset", "--profile", str(profile), timeout=300)
        assert gone.status == 0, gone.output[-3000:]
        return done.output


@contextmanager
def host(
    folder: Path, *, name: str = "checkout", env: Mapping[str, str] | None = None, mounts: str = "", habit: str = "",
    network: Sequence[str] = (),
) -> Iterator[Host]:  # fmt: skip
    """A host whose network is its own.

    Args:
        folder: for its checkout.
        name: the checkout's.
        env: variables.
        mounts: shell commands that make mounts for this host alone.
        habit: a shell command before each of stackbook's, such as a umask.
        network: commands that make its network as the test wants it.
    """
    checkout = folder / name
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    inner = ["nsenter", f"--net=/run/netns/{SPACE}", "--"]
    try:
        for command in ("ip link set lo up", *network):
            subprocess.run([*inner, "sh", "-c", command], check=True)
        with mounted(mounts, {**os.environ, **(env or {})}) as process:
            # Its mounts for all commands, as podman mounts the network namespace of each container.
            prefix = (
                ["nsenter", "--mount", "--target", str(process), f"--net=/run/netns/{SPACE}", "--"] if mounts else inner
            )
            habits = ["sh", "-c", f'{habit}; exec "$@"', "sh"] if habit else []
            yield Host(checkout, dict(env or {}), (*prefix, *habits))
    finally:
        subprocess.run(["ip", "netns", "delete", SPACE], check=True)
        shutil.rmtree(checkout)


@contextmanager
def mounted(commands: str, env: Mapping[str, str]) -> Iterator[int]:
    """A process whose mounts are its own, made by shell commands; 0 where there are none."""
    if not commands:
        yield 0
        return
    # /run/netns stays shared: podman's other containers would not be reached without the network namespaces of these.
    script = f"set -e; mount --make-private /; {commands}; echo ready; exec sleep infinity"
    command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(env)) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n", "the mounts could not be made"
            yield process.pid
        finally:
            process.kill()


# as the network is

ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
NETWORKS = {
    "Docker beside: what is forwarded is dropped": ["iptables -P FORWARD DROP"],
    "ufw or firewalld: only answers come in": [
        "iptables -P INPUT DROP", "iptables -P FORWARD DROP", "iptables -A INPUT -i lo -j ACCEPT",
        f"iptables -A INPUT {ESTABLISHED}", f"iptables -A FORWARD {ESTABLISHED}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_firewall_is_on(name: str, tmp_path: Path) -> None:
    with host(tmp_path, network=NETWORKS[name]) as other:
        other.carries_the_lab("03")


def test_port_53_is_taken(tmp_path: Path) -> None:
    """A DNS server of the host's own listens on every address, as dnsmasq or bind does."""
    listen = (
        "import socket, time; t = socket.socket(); t.bind(('0.0.0.0', 53)); t.listen(); "
        "u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('0.0.0.0', 53)); time.sleep(900)"
    )
    with host(tmp_path) as other:
        process = subprocess.Popen([*other.prefix, sys.executable, "-c", listen])
        try:
            other.carries_the_lab("02")
        finally:
            process.kill()
            process.wait()


# as the user is

USERS = {
    "umask 077, a space in HOME, a Chinese name, locale C, /tmp noexec": (
        "课程 二", {"LC_ALL": "C", "LANG": "C"}, "mount -t tmpfs -o noexec tmpfs /tmp", "umask 077",
    ),
    "zh_CN.GB18030, HOME read-only with the XDG folders elsewhere": (
        "checkout", {"LC_ALL": "zh_CN.GB18030", "PYTHONIOENCODING": "gb18030"},
        'mount --bind "$HOME" "$HOME"; mount -o remount,bind,ro "$HOME"', "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USERS)
def test_a_user_of_another_kind(name: str, tmp_path: Path) -> None:
    folder, env, mounts, habit = USERS[name]
    base = Path("/var/tmp") / f"stackbook-hosts-{os.getpid()}"  # not below /tmp, which is mounted over
    home = base / "h ome"
    home.mkdir(parents=True)
    xdg = {f"XDG_{kind}_HOME": str(base / "xdg" / kind.lower()) for kind in ("STATE", "CONFIG", "DATA")}
    given = {"HOME": str(home), "STACKBOOK_CACHE": str(paths.cache()), **(xdg if "XDG" in name else {}), **env}
    try:
        with host(base, name=folder, env=given, mounts=mounts, habit=habit) as other:
            other.carries_the_lab("02")
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize("part", ["STACKBOOK_STATE", "STACKBOOK_RUNS"])
def test_a_full_disk_is_named(part: str, tmp_path: Path) -> None:
    """The folder has no room: one line that says where, and no traceback."""
    full = tmp_path / "full"
    full.mkdir()
    mounts = f"mount -t tmpfs -o size=4k tmpfs {full}; head -c 8192 /dev/zero > {full}/x 2>/dev/null || true"
    with host(tmp_path, env={part: str(full)}, mounts=mounts) as other:
        profile = other.checkout / "parameters" / "here.yaml"
        profile.write_text(PROFILE)
        done = other.stackbook("run", "--profile", str(profile), "--only", "00", timeout=120)
        other.stackbook("reset", "--profile", str(profile), timeout=300)
    assert done.status in (1, 2), done.output
    assert "Traceback" not in done.output, done.output
    assert "No space left" in done.output and str(full) in done.output, done.output
