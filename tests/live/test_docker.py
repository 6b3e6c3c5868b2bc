"""Docker Compose on a Docker daemon that is somebody's: both projects run there, and the daemon is as it was afterwards.

The daemon is Debian's, in a root file system of its own and in namespaces of its own: it adds no bridge and no rule to this host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from labtools import ROOT
from stackbook.artifacts import go_toolchain
from stackbook.artifacts.resolver import Resolver
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.lessons.containers.docker_daemon import Daemon
from stackbook.lessons.delivery import gitea_compose
from stackbook.lessons.ecosystem.shop import by_compose

pytestmark = [pytest.mark.live, pytest.mark.more]

PACKAGES = "docker.io,iptables,iproute2,ca-certificates"
# Its control groups are below one of its own, so that they can be told apart and removed.
GROUP = "stackbook-test-docker"
_SERVE = """\
set -e
mount --make-rprivate /
ip link set lo up
mount --bind "$1" "$1"
for part in sys dev tmp; do mount --rbind "/$part" "$1/$part"; done
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount --bind "$2" "$1/mnt"
cd "$1"
mkdir -p old
pivot_root . old # not chroot alone: `docker exec` enters the root of the mount namespace, which would be this host's
umount --lazy old
exec chroot . dockerd --host unix:///mnt/docker.sock --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid \\
  --cgroup-parent "/$3"
"""
# What a user has who has Docker and no podman.
PROGRAMS = ("git", "sh", "ps", "ip", "curl")


@dataclass(frozen=True)
class Docker:
    """A daemon, and how to reach its network."""

    daemon: Daemon
    process: subprocess.Popen[bytes]
    programs: Path

    def python(self, script: str, *, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Run a script beside the daemon, as on a host that has Docker and no podman."""
        (inside,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        argv = [
            shutil.which("nsenter") or "nsenter",
            f"--net=/proc/{inside}/ns/net",
            "--",
            sys.executable,
            "-c",
            script,
        ]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "lib"),
            "DOCKER_HOST": self.daemon.host,
            "PATH": str(self.programs),
        }
        return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)

    def state(self) -> dict[str, list[str]]:
        """Everything that it has."""
        ask = {kind: self.daemon.request("GET", f"/{kind}", params={"all": "true"}).json()
               for kind in ("containers/json", "volumes", "networks", "images/json")}  # fmt: skip
        return {
            "containers": sorted(entry["Id"] for entry in ask["containers/json"]),
            "volumes": sorted(entry["Name"] for entry in ask["volumes"]["Volumes"] or []),
            "networks": sorted(entry["Name"] for entry in ask["networks"]),
            "images": sorted(name for entry in ask["images/json"] for name in entry["RepoTags"] or []),
        }


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon that has a project of somebody's: a volume and a network with the name that the lab's file has."""
    artifacts = Resolver.open()  # beside the daemon, nothing can be fetched
    by_compose.images(artifacts)
    for name in (by_compose.COMPONENT, *gitea_compose.COMPONENTS):
        artifacts.path(name)
    folder = tmp_path_factory.mktemp("docker")
    root, shared, programs = folder / "root", folder / "shared", folder / "bin"
    made = subprocess.run(["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)],
                          capture_output=True, text=True, check=False, timeout=600)  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    for each in (shared, programs):
        each.mkdir()
    for name in PROGRAMS:
        where = shutil.which(name)
        assert where, name
        (programs / name).symlink_to(where)
    try:
        with served(root, shared) as process:
            daemon = Daemon(folder, shared / "docker.sock")
            theirs = {"Labels": {"com.docker.compose.project": "bookshop"}}
            daemon.request("POST", "/volumes/create", json={"Name": "bookshop_mariadb", **theirs})
            daemon.request("POST", "/networks/create", json={"Name": "bookshop_default", **theirs})
            yield Docker(daemon, process, programs)
    finally:
        for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{GROUP}/"), reverse=True):
            for inner in sorted(group.glob("**/"), reverse=True):
                inner.rmdir()
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        assert not [path for path in mounted if path.startswith(f"{folder}/")], "something of it is still mounted here"
        shutil.rmtree(root)


@contextmanager
def served(root: Path, shared: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon in namespaces that end with it."""
    enter = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _SERVE, "sh"]
    with (shared / "log").open("wb") as log:
        process = subprocess.Popen(go_toolchain.guarded([*enter, str(root), str(shared), GROUP]), stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT)  # fmt: skip
    daemon = Daemon(shared, shared / "docker.sock")

    def said() -> str:
        return (shared / "log").read_text(errors="replace")[-2000:]

    def answers() -> bool:
        assert process.poll() is None, said()
        return daemon.socket.is_socket() and daemon.request("GET", "/version").is_success

    try:
        until(answers, what="Docker to answer", timeout=60, every=0.2, cause=said, tolerate=(CheckFailed,))
        yield process
    finally:
        end(process)


SHOP = """\
import json
from stackbook.artifacts.resolver import Resolver
from stackbook.lessons.ecosystem.shop import by_compose
artifacts = Resolver.open()
assert by_compose.why_not(artifacts) == ""
with by_compose.running(artifacts, timeout=240) as shop:
    placed, trace, _ = by_compose.order(shop)
    killed = shop.killed("counter")
    print(json.dumps({
        "engine": type(shop.project.engine).__name__, "project": shop.project.name, "same": placed.trace == trace,
        "gates": [gate.kept for gate in by_compose.gates(shop.starts())], "asked": killed.words(),
        "again": by_compose.order(shop)[0].order,
    }))
"""


def test_the_bookshop_runs_on_docker_and_leaves_it_as_it_was(docker: Docker) -> None:
    before = docker.state()
    assert before["volumes"] == ["bookshop_mariadb"] and before["images"] == []
    done = docker.python(SHOP)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["engine"] == "Daemon" and found["project"].startswith("stackbook-bookshop-")
    assert found["same"] and found["again"]
    assert len(found["gates"]) == 7 and all(found["gates"]), found
    assert docker.state() == before


def test_gitea_runs_on_docker(docker: Docker) -> None:
    before = docker.state()
    script = ("from stackbook.artifacts.resolver import Resolver\nfrom stackbook.lessons.delivery import gitea_compose\n"
              "found = gitea_compose.trial(Resolver.open())\nprint(found.tables, found.pushed == found.after)\n")  # fmt: skip
    done = docker.python(script)
    assert done.returncode == 0, done.stderr[-3000:]
    tables, same = done.stdout.split()[-2:]
    assert int(tables) > 50 and same == "True"
    assert docker.state() == before


def test_what_a_killed_process_left_is_removed_by_the_next(docker: Docker) -> None:
    before = docker.state()
    script = SHOP.replace("    placed,", "    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)\n    placed,")
    assert script != SHOP
    assert docker.python(script).returncode == -9
    left = docker.state()
    assert len(left["containers"]) > 5 and left["images"] and set(before["volumes"]) < set(left["volumes"])
    swept = docker.python("from stackbook.lessons.containers import docker_daemon\ndocker_daemon.sweep()\n")
    assert swept.returncode == 0, swept.stderr
    assert docker.state() == before
