"""Printed commands are read and typed, and two states of a lab are compared: without a lab."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.app.command_script import script
from stackbook.config import chapters
from stackbook.machines.transports import LocalHost

LIVE = Path(__file__).parents[1] / "live"
API = "this host, by the API"
KEEP = "sh -c 'set -e\nours() { [ -s \"$mark\" ]; }\necho '\"'\"'# on nobody'\"'\"'\n'"
PODS = ["coredns-6b9c-x", "coredns-5c6458f85f-bbbbb", "coredns-5c6458f85f-ccccc", "shipper-t5x7m", "load"]


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(LIVE)
    return __import__("by_hand")


@pytest.fixture
def lab_state(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(LIVE)
    return __import__("lab_state")


def recorded(command: str, host: str = "k8s-master", rc: int = 0, given: str = "") -> dict[str, object]:
    return {"host": host, "command": command, "rc": rc, "seconds": 0.1, **({"input": given} if given else {})}


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `stackbook commands 02` prints of a short record."""
    monkeypatch.setenv("STACKBOOK_RUNS", str(tmp_path))
    write = """sh -c 'set -e; cat > "$1.new"; mv "$1.new" "$1"' write /etc/motd 644"""
    commands = [
        recorded("kubelet --version", rc=127),
        recorded(write, given="# on this host\nit's\n"),
        recorded(KEEP, rc=3),
        recorded("kubectl apply -f -", API, rc=1, given="kind: A\n"),
        recorded("kubectl exec -i load -- /usr/local/bin/load run cc44", "this host", given='{"count": 1}'),
        recorded("kubectl exec load -- /usr/local/bin/load stop cc44", "this host"),
    ]
    data = {
        "chapters": [
            {
                "chapter": "02-kubeadm",
                "outcome": "passed",
                "steps": [{"step": "init", "title": "a: b", "commands": commands}],
            }
        ]
    }
    (tmp_path / "20260101T000000Z").mkdir()
    (tmp_path / "20260101T000000Z" / "run.json").write_text(json.dumps(data))
    return "\n".join(script(chapters.find("02"))) + "\n"


def test_printed_commands_are_read_and_each_is_one_of_a_shell(by_hand: Any, printed: str) -> None:
    found = by_hand.parse(printed)
    assert [(c.step, c.place, c.status) for c in found] == [
        ("init", "k8s-master", 127), ("init", "k8s-master", 0), ("init", "k8s-master", 3), ("init", "this host", 1),
        ("init", "this host", 0), ("init", "this host", 0),
    ]  # fmt: skip
    assert found[0].text == "kubelet --version"
    assert found[1].text == "install -D -m 644 /dev/stdin /etc/motd <<'EOF'\n# on this host\nit's\nEOF"
    assert found[2].text == KEEP
    assert found[3].text == "kubectl apply -f - <<'EOF'\nkind: A\nEOF"
    for place in ("k8s-master", "this host"):
        typed = "\n".join(c.text for c in found if c.place == place)
        assert subprocess.run(["bash", "-n"], input=typed, text=True, check=False).returncode == 0
    background = by_hand.beside(found)
    assert [bool(by_hand.left_out(c, background)) for c in found] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("cut", ["sh -c 'a\nb\n", "cat <<'EOF'\nno end\n"])
def test_a_command_without_an_end_is_refused(by_hand: Any, cut: str) -> None:
    with pytest.raises(ValueError, match="has no end"):
        by_hand.parse(f"# on this host\n{cut}")


@pytest.mark.parametrize(
    ("text", "looks", "private", "typed"),
    [
        ("kubectl get pods -n default -o json", True, False, True),
        ("kubectl -n kube-flannel get cm x -o json", True, False, True),
        ("kubectl label namespace default istio-injection=enabled --overwrite", False, False, True),
        ("kubectl -n kube-flannel delete pods -l app=flannel", False, False, True),
        ("kubectl exec -n a b -- curl http://reviews:9080", True, False, True),
        ("kubectl exec -n a b -c c -- sh -c ': > config/users'", False, False, True),
        ("curl -sS -m 5 http://10.244.1.8/", True, True, True),
        ("curl http://192.168.86.3:31134/productpage", True, True, True),
        ("kubeadm init --config x", False, False, True),
        ("kubeadm config images list", True, False, True),
        ("istioctl install -f x -y", False, False, True),
        ("ip -j route", True, False, True),
        ("ip link delete flannel.1", False, False, True),
        ("pkill -STOP -x flanneld", False, False, True),
        ("kill -KILL 3560", False, False, False),
        ("readlink /proc/3560/ns/net", True, False, False),
        (f"ctr -n k8s.io tasks kill --signal SIGKILL {'a1' * 32}", False, True, False),
        (f"ctr -n k8s.io images import /opt/stackbook/blobs/sha256/a1/{'a1' * 32}", False, True, True),
        ("app-load stop ff422dc137bf30a00a", True, True, False),
    ],
)
def test_what_only_looks_and_what_is_not_typed(
    by_hand: Any, text: str, looks: bool, private: bool, typed: bool
) -> None:
    command = by_hand.Command("s", "this host", text)
    assert (command.looks, command.private, by_hand.left_out(command) == "") == (looks, private, typed)


def test_a_pod_of_the_recorded_run_is_one_of_this_lab(by_hand: Any) -> None:
    known: dict[str, str] = {}
    two = by_hand.with_living(
        "kubectl delete pods coredns-5c6458f85f-kkcs2 coredns-5c6458f85f-xx7qz --force", PODS, known
    )
    assert two == "kubectl delete pods coredns-5c6458f85f-bbbbb coredns-5c6458f85f-ccccc --force"
    assert by_hand.with_living("kubectl exec shipper-s48l4 -- ls", PODS, known) == "kubectl exec shipper-t5x7m -- ls"
    assert by_hand.with_living("kubectl get pod coredns-5c6458f85f-xx7qz", PODS, known).endswith("-ccccc")
    assert by_hand.with_living("kubectl exec shipper-54dh2 -- ls", PODS, known) == "kubectl exec shipper-t5x7m -- ls"
    assert by_hand.with_living("kubectl get pod other-s48l4 load", PODS, known) == "kubectl get pod other-s48l4 load"


@pytest.fixture
def hand(by_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hand whose machine `m` is this host; there is no cluster."""
    monkeypatch.setattr(by_hand, "FOLDER", str(tmp_path))
    lab = SimpleNamespace(machines={"m": LocalHost("m")}, kubeconfig=tmp_path / "none")
    said: list[str] = []
    found = by_hand.Hand(lab, tmp_path, say=said.append, prepared={"m"})
    found.said = said
    return found


def test_commands_are_typed_in_a_shell_in_their_order(hand: Any, tmp_path: Path) -> None:
    hand.type(
        "# c: x\n\n# s: t\n# on m\ncat > a <<'EOF'\n$HOME\nEOF\nmv a b\ntest -e a  # exit status 1\nkill -KILL 1\n"
    )
    assert (tmp_path / "b").read_text() == "$HOME\n"
    assert hand.said[-1].startswith("  – 4/4 m: kill -KILL 1: left out: the number of a process")


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("sh -c 'echo no >&2; exit 7'", r"failed\nstep s, on m:\nsh -c .*\nexit status 7, recorded 0\nno"),
        ("true  # exit status 2", r"succeeded, and failed in the recorded run\nstep s"),
        ("ss --no-such-flag", r"failed\nstep s, on m:\nss"),
        ("cat > x <<'EOF'\n***\nEOF", "a secret is masked"),
    ],
)
def test_a_command_that_does_something_else_is_named(hand: Any, by_hand: Any, typed: str, why: str) -> None:
    with pytest.raises(by_hand.Failed, match=why):
        hand.type(f"# s: t\n# on m\n{typed}\n")


def test_a_look_at_what_the_recorded_run_had_may_find_nothing(hand: Any) -> None:
    hand.type("# s: t\n# on m\nss --no-such-flag 10.244.1.8\n")
    assert hand.said[-1] == "    it only looks, at what the recorded run had: this command failed"


def test_what_is_unready(by_hand: Any) -> None:
    deployment = {"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2},
                  "status": {"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 2}}  # fmt: skip
    assert not by_hand.unready(deployment)
    assert by_hand.unready({**deployment, "metadata": {"generation": 3}})
    assert by_hand.unready({**deployment, "status": {**deployment["status"], "readyReplicas": 1}})  # type: ignore[dict-item]
    assert by_hand.unready({"kind": "Namespace", "metadata": {"deletionTimestamp": "now"}, "status": {}})
    assert not by_hand.unready({"kind": "Namespace", "metadata": {}, "status": {}})
    daemons = {"desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 1, "observedGeneration": 1}
    assert by_hand.unready({"kind": "DaemonSet", "metadata": {"generation": 1}, "spec": {}, "status": daemons})


ITEMS: list[dict[str, Any]] = [
    {"kind": "Namespace", "metadata": {"name": "default", "uid": "1", "labels": {"istio-injection": "enabled"}}, "spec": {}},
    {"kind": "Service", "metadata": {"name": "reviews", "namespace": "default", "resourceVersion": "7"},
     "spec": {"clusterIP": "10.0.0.7", "ports": [{"port": 9080, "nodePort": 31134}]}},
    {"kind": "Deployment",
     "metadata": {"name": "reviews-v1", "namespace": "default", "annotations": {"deployment.kubernetes.io/revision": "3"}},
     "spec": {"replicas": 1, "template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}},
    {"kind": "Pod", "metadata": {"name": "reviews-v1-878c79dbc-gznrg", "namespace": "default",
                                 "ownerReferences": [{"kind": "ReplicaSet", "controller": True}]},
     "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    {"kind": "Pod", "metadata": {"name": "load", "namespace": "default"},
     "spec": {"nodeName": "k8s-node1", "volumes": [{"name": "kube-api-access-x2x4d"}, {"name": "tmp"}]}},
    {"kind": "Secret", "metadata": {"name": "ca", "namespace": "default"}, "type": "Opaque", "data": {"key": "aGlkZGVu", "crt": "eA=="}},
    {"kind": "Secret", "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token"},
    {"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "default"},
     "data": {"ca.crt": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}},
    {"kind": "ReplicaSet", "metadata": {"name": "reviews-v1-878c79dbc", "namespace": "default"}, "spec": {}},
]  # fmt: skip


def test_the_state_has_what_was_set_and_not_what_the_cluster_chose(lab_state: Any) -> None:
    found = lab_state.objects(ITEMS)
    assert found == {
        "Namespace default": {"labels.istio-injection": "enabled"},
        "Service default/reviews": {"spec.ports[0].port": "9080"},
        "Deployment default/reviews-v1": {"spec.replicas": "1"},
        "Pods of default/reviews-v1": {"ready": "1"},
        "Pod default/load": {"spec.volumes[0].name": "tmp"},
        "Secret default/ca": {"type": "Opaque", "keys[0]": "crt", "keys[1]": "key"},
        "ConfigMap default/kube-root-ca.crt": {"data.ca.crt": "a certificate\n"},
    }
    assert "aGlkZGVu" not in repr(found)


def test_each_difference_is_named(lab_state: Any) -> None:
    """Without a label, without an object, with a pod that is not ready and with another file."""
    before = lab_state.State({**lab_state.objects(ITEMS), "m: /etc/motd": {"": "mode 644, sha256 aa"}})
    assert lab_state.differences(before, copy.deepcopy(before)) == []
    changed = copy.deepcopy(ITEMS)
    del changed[0]["metadata"]["labels"]
    del changed[1]
    changed[2]["status"] = {"conditions": []}
    other = lab_state.State(
        {**lab_state.objects(changed), "m: /etc/motd": {"": "mode 644, sha256 bb"}, "m: /x": {"": "mode 644"}}
    )
    assert lab_state.differences(before, other) == [
        'Namespace default, labels.istio-injection: "enabled" by the chapters, nothing by the typed commands',
        'Pods of default/reviews-v1, ready: "1" by the chapters, "0" by the typed commands',
        "Service default/reviews: missing after the typed commands",
        'm: /etc/motd: "mode 644, sha256 aa" by the chapters, "mode 644, sha256 bb" by the typed commands',
        "m: /x: only after the typed commands",
    ]
