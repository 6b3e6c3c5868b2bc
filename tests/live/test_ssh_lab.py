"""`target: ssh` on two machines that have nothing of the lab's, behind a jump host, with strict known hosts: chapters 00 to 07, and 99."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from labtools import keep_evidence, stackbook
from ssh_machines import ADDRESSES, GATE, USER, Machines, machines
from stackbook.app import reset
from stackbook.app.host_state import Difference, Snapshot

pytestmark = [pytest.mark.live, pytest.mark.more]
PLAIN = [name for name in ADDRESSES if name != GATE]
# What is somebody's on a machine: users, keys, name servers, root's files, rules and links that are not podman's.
STATE = """
cat /etc/passwd /etc/group /etc/sudoers.d/* /etc/resolv.conf /etc/hosts /etc/hostname
find /etc/ssh /home /root -type f -exec sha256sum {} +
for program in iptables ip6tables; do $program-save 2>/dev/null | grep -v '^[#:*]' | grep -v COMMIT || true; done
ip -br link | awk '{print $1}' | cut -d@ -f1
ls -d /etc/kubernetes/* /var/lib/etcd/* /etc/cni/net.d/* /var/lib/stackbook 2>/dev/null || true
"""

# What a reset leaves, as the README says: the users of packages.
STAYS = re.compile(r"(iperf3|tcpdump|netdev):x:")


def state(made: Machines) -> dict[str, set[str]]:
    return {name: {line for line in made.sh(name, STATE).splitlines() if line.strip()} for name in PLAIN}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    before = reset.snapshot()
    with machines(tmp_path_factory.mktemp("ssh")) as made:
        ids = made.ids()
        assert len(ids) == len(ADDRESSES)
        yield made
    assert left(before, reset.snapshot(), ids) == []


def left(before: Snapshot, after: Snapshot, ids: set[str]) -> list[Difference]:
    """What differs, without the control groups of other containers: a compose project of another test has a podman of its own."""

    def ours(kind: str, line: str) -> bool:
        group = re.search(r"libpod-(?:conmon-)?([0-9a-f]{64})", line)
        return kind != "cgroups" or group is None or group[1] in ids

    kept = [replace(d, added=tuple(line for line in d.added if ours(d.kind, line)),
                    gone=tuple(line for line in d.gone if ours(d.kind, line)))
            for d in reset.compare(before, after)]  # fmt: skip
    return [d for d in kept if d.added or d.gone or d.unread]


def test_a_control_group_of_another_podman_is_not_theirs() -> None:
    ours, others = "a" * 64, "b" * 64
    groups = [f"/sys/fs/cgroup/cpu/libpod_parent/libpod-{each}" for each in (ours, others)]
    found = left({"cgroups": []}, {"cgroups": groups}, {ours})
    assert [d.added for d in found] == [(groups[0],)]


def written(folder: Path, made: Machines, **more: object) -> Path:
    nodes = [{"name": name, "address": ADDRESSES[name], "user": USER, "key": str(made.key),
              "jump": f"{USER}@{ADDRESSES[GATE]}"} for name in PLAIN]  # fmt: skip
    path = folder / "sbssh.yaml"
    profile = {"target": "ssh", "lab": "sbssh", "nodes": nodes, "known_hosts": str(made.known_hosts), **more}
    path.write_text(yaml.safe_dump(profile))
    return path


def refused(profile: Path) -> str:
    """What the run says in its last lines; it must have refused the profile as bad input, before anything was changed."""
    done = stackbook("run", "--profile", str(profile), "--only", "00", "--only", "01", timeout=200)
    assert done.status == 2, done.output[-3000:]
    assert "Traceback" not in done.output
    return done.output


def test_there_is_no_other_way_than_the_jump_host(made: Machines) -> None:
    assert made.login(GATE).returncode == 0
    for name in PLAIN:
        assert made.login(name).returncode == 255, "the test would prove nothing about the jump host"


def test_a_wrong_key_is_refused(made: Machines, tmp_path: Path) -> None:
    before = state(made)
    other = tmp_path / "other"
    other.write_text(made.known_hosts.read_text())  # no key at all
    other.chmod(0o600)
    profile = written(tmp_path, Machines(other, made.known_hosts))
    assert "ermission denied" in refused(profile)
    assert state(made) == before


def test_a_host_key_that_is_not_known_is_refused(made: Machines, tmp_path: Path) -> None:
    before = state(made)
    known = tmp_path / "known_hosts"
    lines = made.known_hosts.read_text().splitlines(keepends=True)
    swapped = [
        line.replace(ADDRESSES["plain-two"], ADDRESSES["plain-one"])
        for line in lines
        if ADDRESSES["plain-one"] not in line
    ]
    known.write_text("".join(swapped))
    assert "known_hosts" in refused(written(tmp_path, made, known_hosts=str(known)))
    assert state(made) == before


def test_sudo_that_asks_for_a_password_is_refused(made: Machines, tmp_path: Path) -> None:
    before = state(made)
    rule = f"/etc/sudoers.d/{USER}"
    made.sh("plain-two", f"sed -i 's/NOPASSWD: //' {rule}")
    try:
        assert "NOPASSWD" in refused(written(tmp_path, made))
    finally:
        made.sh("plain-two", f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > {rule}")
    assert state(made) == before, "the first machine was left alone, too"


def test_the_chapters_run_and_the_machines_are_given_back(made: Machines, tmp_path: Path) -> None:
    """Chapters 00 to 07 in one go, then 99: no rule, link, key or setting is left but those of STAYS."""
    before = state(made)
    profile = written(tmp_path, made)
    try:
        done = stackbook("run", "--profile", str(profile), "--to", "07", timeout=1500)
        if done.status:
            keep_evidence(done.output)
        assert done.status == 0, done.output[-5000:]
        assert "sbssh" not in made.sh("plain-one", "ls /opt /var/tmp"), "nothing of the lab's lies about"
        assert "plain-two" in made.sh("plain-one", "cat /etc/hosts; test -d /var/lib/stackbook/sbssh")
    finally:
        gone = stackbook("run", "--profile", str(profile), "--only", "99", timeout=400)
        again = stackbook("reset", "--profile", str(profile), timeout=300)
    assert gone.status == 0, gone.output[-3000:]
    assert again.status == 0, again.output[-3000:]
    after = state(made)
    lost = {name: sorted(before[name] - after[name]) for name in PLAIN}
    left = {name: sorted(line for line in after[name] - before[name] if not STAYS.match(line)) for name in PLAIN}
    assert not any(lost.values()) and not any(left.values()), f"lost {lost}, left {left}"
