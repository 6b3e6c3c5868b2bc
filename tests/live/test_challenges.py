"""Every challenge on the live lab: unsolved it fails and says why, its own commands solve it, and the lab is as it was.

`STACKBOOK_CHALLENGES` names the profile of another lab than the default one; it must have run to its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labtools import ROOT, stackbook
from stackbook.app import session
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import until
from stackbook.lab import attempt
from stackbook.lab.challenge import Challenge
from stackbook.lab.lab import Lab
from stackbook.lessons import challenges
from stackbook.lessons.delivery.release import access as release

pytestmark = pytest.mark.live

SLOW = frozenset({
    "02-a", "03-b", "05-a", "06-b", "06-c", "07-a", "09-c", "10-b", "10-c", "11-b", "11-c", "12-a", "12-b", "14-c", "16-a", "16-b", "16-c",
})  # fmt: skip
"""What takes longest, or is much like another; the others are in CI, at least one of each chapter (of 16 in `test_incident`)."""
KINDS = ("configmaps", "services", "deployments", "daemonsets", "statefulsets", "cronjobs", "serviceaccounts")
RULES = ("virtualservices.networking.istio.io", "destinationrules.networking.istio.io", "gateways.networking.istio.io",
         "sidecars.networking.istio.io", "telemetries.telemetry.istio.io", "peerauthentications.security.istio.io")  # fmt: skip
FILES = ("/etc/hosts /etc/hostname /etc/sysctl.d/*.conf /etc/kubernetes/manifests/* /var/lib/kubelet/kubeadm-flags.env "
         "/var/lib/kubelet/config.yaml /etc/containerd/config.toml /run/flannel/subnet.env")  # fmt: skip
STATE = f"""
sha256sum {FILES}; stat -c '%n %a %U' {FILES}; hostname; sysctl net.ipv4.ip_forward; ip netns list | grep -c challenge
bridge fdb show dev flannel.1 | sed 's/^[0-9a-f:]* /MAC /' | sort; ip route | sort; iptables-save -t raw | grep -v '^[#:]' | sort
"""
TOOK: dict[str, dict[str, float]] = {}
SEEN: list[dict[str, str]] = []
"""The lab's state as it was seen last: at the end of a test, which is the start of the next."""


@pytest.fixture(scope="module")
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    """The lab's profile. Chapters 10 to 12 and 14 are run where they have not been; in the end, the lab is compared with its start."""
    name = os.environ.get("STACKBOOK_CHALLENGES", "")
    if not name:
        request.getfixturevalue("built")
    name = name or "embedded"
    for chapter in ("10-metrics", "11-tracing", "12-logs", "14-ecosystem"):
        lab = session.opened(chapter, name)
        try:
            lab.checks_of(chapter)[-1].prove(lab)
        except StackbookError:
            done = stackbook("run", "--only", chapter[:2], "--profile", name)
            assert done.status == 0, done.output[-3000:]
    lab = session.opened("05-istio", name)
    namespaces_gone(lab)
    before = state(lab)
    SEEN[:] = [before]
    yield name
    print(json.dumps(TOOK, indent=1))
    if path := os.environ.get("STACKBOOK_TEST_LOGS"):
        Path(path, "challenges.json").write_text(json.dumps(TOOK, indent=1))
    namespaces_gone(lab)
    assert differences(before, state(lab)) == {}


CHANGING = ("istio-leader", "istio-ca-root-cert")
"""What other controllers write whenever they like."""


def leaving(lab: Lab) -> list[str]:
    """The namespaces of challenges, and those that are being deleted, as earlier tests and chapters do not wait for their end."""
    items = lab.kube.json("get", "namespaces")["items"]
    names = {item["metadata"]["name"]: item["status"].get("phase") for item in items}
    return [name for name, phase in names.items() if name.startswith("challenge-") or phase == "Terminating"]


def namespaces_gone(lab: Lab) -> None:
    until(lambda: not leaving(lab), what="namespaces that are deleted to be gone", timeout=180, every=1,
          last=lambda: ", ".join(leaving(lab)))  # fmt: skip


def _compared(namespace: str) -> bool:
    """Whether others leave a namespace as it is: chapter 13's release comes and goes in another lane."""
    return not namespace.startswith("challenge-") and namespace != release.NAMESPACE


def state(lab: Lab) -> dict[str, str]:
    """What a challenge may change: files and tables of the machines, and the objects of every other namespace."""
    found = {name: host.run(["sh", "-c", STATE], check=False).stdout for name, host in lab.machines.items()}
    for item in lab.kube.json("get", ",".join((*KINDS, *RULES)), "-A")["items"]:
        meta = item["metadata"]
        if not _compared(meta["namespace"]) or meta["name"] in CHANGING:
            continue
        if meta["name"] == "cluster-info":  # 02-c changes it; its signatures come and go with bootstrap tokens
            item["data"] = {"kubeconfig": item["data"]["kubeconfig"]}
        kept = {key: value for key, value in item.items() if key not in ("metadata", "status")}
        text = json.dumps([kept, meta.get("labels", {})], sort_keys=True)
        found[f"{item['kind']} {meta['namespace']}/{meta['name']}"] = hashlib.sha256(text.encode()).hexdigest()
    for node in lab.kube.nodes():
        found[f"Node {node['metadata']['name']}"] = json.dumps(
            [node["spec"], node["metadata"]["labels"]], sort_keys=True
        )
    found["namespaces"] = " ".join(sorted(
        item["metadata"]["name"] for item in lab.kube.json("get", "namespaces")["items"] if _compared(item["metadata"]["name"])
    ))  # fmt: skip
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    names = {*before, *after}
    return {name: (before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)}


def marked(challenge: Challenge) -> Any:
    return pytest.param(challenge, id=challenge.id, marks=[pytest.mark.more] if challenge.id in SLOW else [])


@pytest.mark.parametrize("challenge", [marked(challenge) for challenge in challenges.every()])
def test_unsolved_solved_and_given_back(challenge: Challenge, profile: str) -> None:
    lab = session.opened(challenge.chapter, profile)
    touches = bool(challenge.needs)
    with lab.turn(f"challenge {challenge.id}"):
        start = time.monotonic()
        one = lab.challenge(challenge.id, seed="tests")
        moments = [time.monotonic()]
        folder = one.folder
        try:
            wrong = [finding for finding in one.findings() if not finding.holds]
            moments.append(time.monotonic())
            print(*wrong, sep="\n")
            assert wrong, "nothing is wrong"
            assert all(finding.seen for finding in wrong), wrong
            assert one.solution()
            one.solve()
            moments.append(time.monotonic())
            after = one.findings(patience=60)
            moments.append(time.monotonic())
            print(*after, sep="\n")
            assert all(finding.holds and finding.seen for finding in after), after
        finally:
            one.end()
        moments.append(time.monotonic())
        names = ("begin", "unsolved", "solution", "solved", "end")
        TOOK[challenge.id] = {n: round(b - a, 1) for n, a, b in zip(names, [start, *moments], moments, strict=False)}
        print(TOOK[challenge.id])
        assert not folder.exists() and not (lab.state / attempt.FILE).exists()
        if touches:
            before, SEEN[:] = SEEN[0], [state(lab)]
            assert differences(before, SEEN[0]) == {}


@pytest.mark.more
def test_another_process_gives_back_what_a_dead_one_has_broken(profile: str) -> None:
    """By the command line: begun, its process gone, verified with a reason, given back."""
    lab = session.opened("04-kubernetes", profile)
    before = state(lab)

    def ran(*words: str) -> tuple[int, str]:
        done = stackbook("challenge", *words, "--profile", profile, timeout=200)
        return done.status, done.output

    status, said = ran("start", "04-a")
    assert status == 0, said
    try:
        status, said = ran("verify")
        assert (
            status == 1 and "✗ the Service has the pods of shop as its endpoints: the Service has 0 endpoints" in said
        ), said
        assert ran("solution", "--apply")[0] == 0
        verdicts: list[tuple[int, str]] = []

        def solved() -> bool:
            verdicts.append(ran("verify"))
            return verdicts[-1][0] == 0

        # kube-proxy takes its time on a busy machine.
        until(solved, what="04-a to be solved", timeout=90, every=2, last=lambda: verdicts[-1][1])
        assert "04-a is solved" in verdicts[-1][1], verdicts
    finally:
        ended = ran("end")
    assert ended == (0, "✓ 04-a is given back\n")
    assert differences(before, state(lab)) == {}
    assert str(ROOT) not in verdicts[-1][1]
