"""What is wrong with a lab: each rule both ways, the order, deadlines, no lab at all, what is read, and what leaves in a bundle."""

from __future__ import annotations

import json
import re
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diagnose_snapshots as lab
import pytest
import secrets_scan
from diagnose_snapshots import NOW, PAST, STAMP, objects, pod, sound, units
from stackbook.app import cli
from stackbook.app.diagnose import (
    Diagnosis,
    cluster_probes,
    collect_cluster,
    collection,
    judge,
    layers,
    machine_probes,
    support_bundle,
)
from stackbook.app.diagnose.findings import LAYERS, Cause, ordered
from stackbook.app.diagnose.rules import ALL
from stackbook.app.diagnose.snapshot import Answer, Cluster, Snapshot
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError, TransportError, WaitTimeout
from stackbook.core.redact import Secret
from stackbook.core.results import Result

NODE, FIRST = "k8s-node1", "k8s-master"


def names(snapshot: Snapshot) -> list[str]:
    return [cause.name for cause in judge(snapshot)]


def said(probe: str, out: str, *, on: str = NODE, **more: Any) -> Callable[[Snapshot], None]:
    """A machine that answers a probe otherwise."""

    def change(snapshot: Snapshot) -> None:
        snapshot.machines[on].answers[probe] = Answer(out=out, at=NOW, **more)

    return change


def host(probe: str, out: str = "", **more: Any) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        snapshot.host[probe] = Answer(out=out, **more)

    return change


def both(*changes: Callable[[Snapshot], None]) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        for one in changes:
            one(snapshot)

    return change


def has(kind: str, *items: dict[str, Any]) -> Callable[[Snapshot], None]:
    """A cluster that has these objects besides."""
    return lists(lambda found: found[kind].extend(items))


def lists(change: Callable[[dict[str, list[dict[str, Any]]]], object]) -> Callable[[Snapshot], None]:
    def changed(snapshot: Snapshot) -> None:
        found = objects()
        change(found)
        snapshot.cluster.answers |= lab.answers(found)

    return changed


def state(value: str, name: str = NODE) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        snapshot.machines[name].state = value

    return change


def log(name: str, text: str) -> Callable[[Snapshot], None]:
    return lambda snapshot: snapshot.cluster.answers.update({f"log {name}": Answer(text)})


def warning(of: str, reason: str, message: str, at: str = STAMP) -> dict[str, Any]:
    return {"involvedObject": {"uid": f"uid-{of}"}, "reason": reason, "message": message, "lastTimestamp": at}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": STAMP}}


def route(**destination: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"http": [{"route": [{"destination": destination}]}]},
    }


def without_manifest(name: str) -> Callable[[Snapshot], None]:
    def change(snapshot: Snapshot) -> None:
        answers = snapshot.machines[FIRST].answers
        answers["manifests"] = Answer(answers["manifests"].out.replace(f"{name}.yaml\n", ""))
        answers["processes"] = Answer(answers["processes"].out.replace(f"{name[:15]}\n", ""))

    return change


def silent(snapshot: Snapshot) -> None:
    """The API server does not answer anybody."""
    snapshot.cluster = Cluster({"readyz": Answer(rc=1)}, problem="connection refused")
    for machine in snapshot.machines.values():
        machine.answers["API server"] = Answer(rc=7)


def scaled(namespace: str, name: str) -> Callable[[Snapshot], None]:
    def change(found: dict[str, list[dict[str, Any]]]) -> None:
        item = next(d for d in found["deployments"] if d["metadata"]["name"] == name)
        item["spec"]["replicas"] = item["status"]["availableReplicas"] = 0
        found["pods"] = [p for p in found["pods"] if not p["metadata"]["name"].startswith(name)]
        for piece in found["endpointslices"]:
            if piece["metadata"]["labels"]["kubernetes.io/service-name"] == name:
                piece["endpoints"] = []

    return lists(change)


def node_with(**spec: Any) -> Callable[[Snapshot], None]:
    return lists(lambda found: found["nodes"][1]["spec"].update(spec))


def unscheduled(message: str) -> dict[str, Any]:
    item = pod("waits", ready=False, state={})
    item["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": message}],
    }
    return item


def refused(message: str) -> dict[str, Any]:
    item = lab.workload("many", "default")
    item["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": message}]
    return item


FULL = "Filesystem 1024-blocks Used Available Capacity Mounted on\ntmpfs 100 99 1 99% /run\n"
FAILING = units(kubelet="activating/auto-restart")
DUMP = json.dumps({"configs": [{"dynamic_listeners": [{"error_state": {"details": "no such filter"}}]}]})

CASES: dict[str, tuple[str, Callable[[Snapshot], None]]] = {
    "podman": ("podman-broken", host("podman", rc=1, err="it does not start")),
    "host disk": ("host-disk-full", host("disks", FULL)),
    "no kubeconfig": ("kubeconfig-missing", host("kubeconfig", rc=1, err="No such file")),
    "old kubeconfig": ("kubeconfig-expired", host("kubeconfig certificate", PAST)),
    "kubeconfig elsewhere": ("kubeconfig-address", host("kubeconfig", "https://127.0.0.9:6443")),
    "paused": ("machine-paused", state("paused")),
    "stopped": ("machine-stopped", state("exited")),
    "all stopped": ("lab-stopped", both(state("exited"), state("exited", FIRST))),
    "gone": ("machine-missing", state("absent")),
    "silent machine": ("machine-silent", said("clock", "", problem="no answer within 4 s")),
    "silent systemd": ("systemd-silent", said("units", "", problem="no answer within 5 s")),
    "disk": ("disk-full", said("disks", FULL)),
    "inodes": ("disk-full", said("inodes", FULL)),
    "memory": ("memory-low", said("memory", "MemTotal: 1000 kB\nMemAvailable: 10 kB\n")),
    "clock": ("clock-off", said("clock", f"{NOW + 100}\n")),
    "hosts": ("hosts-entry", said("hosts", "192.0.2.1 k8s-master\n")),
    "rule 10250": ("packet-filter", said("packet filter", "*filter\n-A INPUT -p tcp -m tcp --dport 10250 -j DROP\n")),
    "rule 8472": ("packet-filter", said("packet filter", "*raw\n-A PREROUTING -p udp -m udp --dport 8472 -j DROP\n")),
    "rule for all": ("packet-filter", said("packet filter", "*filter\n-A INPUT -j DROP\n")),
    "containerd": ("containerd-stopped", said("units", units(containerd="inactive/dead"))),
    "containerd's TOML": ("containerd-config", both(said("units", units(containerd="failed/failed")),
                                                    said("containerd log", "containerd: failed to load TOML: /etc\n"))),
    "sandbox": ("sandbox-image-missing", said("images", "lab/etcd:1\n")),
    "drivers": ("cgroup-drivers", said("kubelet config", "cgroupDriver: cgroupfs\nfailSwapOn: false\n")),
    "proxy": ("proxy-for-the-inside", said("containerd proxies", 'HTTPS_PROXY="http://p:3128"\nNO_PROXY="10.244.0.0/16"\n')),
    "kubelet": ("kubelet-stopped", said("units", units(kubelet="inactive/dead"))),
    "kubelet's flag": ("kubelet-flag", both(said("units", FAILING), said("kubelet healthz", "", rc=7),
                                            said("kubelet log", "E1 failed to parse kubelet flag: unknown flag: --x\n"))),
    "kubelet's YAML": ("kubelet-config", both(said("units", FAILING), said("kubelet healthz", "", rc=7),
                                              said("kubelet log", "failed to load kubelet config file, path: /var\n"))),
    "kubelet, otherwise": ("kubelet-failing", both(said("units", FAILING), said("kubelet healthz", "", rc=7))),
    "not joined": ("node-not-joined", said("server of kubeconfigs", "", rc=2)),
    "kubelet elsewhere": ("kubelet-address", said("server of kubeconfigs", "x:    server: https://192.0.2.9:6443\n")),
    "swap": ("kubelet-swap", both(said("swap", "Filename\n/dev/sdb1 partition 1 0 -2\n"),
                                  said("kubelet config", "cgroupDriver: systemd\n"))),
    "etcd": ("etcd-missing", both(without_manifest("etcd"), silent)),
    "scheduler": ("kube-scheduler-missing", without_manifest("kube-scheduler")),
    "controllers": ("kube-controller-manager-missing", without_manifest("kube-controller-manager")),
    "flag": ("kube-apiserver-flag", both(silent, said("API server", "", rc=7, on=FIRST),
                                         said("component logs", "== kube-apiserver\nError: unknown flag: --x\n", on=FIRST))),
    "failing": ("kube-apiserver-failing", both(silent, said("API server", "", rc=7, on=FIRST))),
    "unready": ("api-server-unready", lambda s: s.cluster.answers.update(readyz=Answer("[-]poststarthook/x failed\n"))),
    "certificate": ("certificate-expired", said("certificates", f"== /etc/kubernetes/pki/apiserver.crt\n{PAST}\n", on=FIRST)),
    "forwarding": ("forwarding-off", said("sysctls", "net.ipv4.ip_forward = 0\n", rc=255)),
    "bridge": ("bridge-filter-off", said("sysctls", "net.bridge.bridge-nf-call-iptables = 0\n")),
    "CNI": ("cni-config-missing", said("CNI configuration", "")),
    "plugin": ("cni-plugin-missing", said("CNI plugins", "flannel\nportmap\nhost-local\nloopback\n")),
    "CNI not read": ("cni-not-loaded", lists(lambda f: f["nodes"][1]["status"]["conditions"][0].update(
        status="False", reason="KubeletNotReady", message="cni plugin not initialized"))),
    "no flannel": ("flannel-missing", lists(lambda f: f["daemonsets"].pop(0))),
    "flannel nowhere": ("flannel-missing", lists(lambda f: f["daemonsets"][0]["status"].update(desiredNumberScheduled=0))),
    "flannel not ready": ("flannel-failing", has("pods", pod("fl-2", "kube-flannel", ready=False, labels={"app": "flannel"}))),
    "flannel's network": ("flannel-network",
                          lists(lambda f: f["flannel"][0]["data"].update({"net-conf.json": '{"Network": "10.9.0.0/16"}'}))),
    "lease": ("subnet-env-missing", said("subnet.env", "", rc=1)),
    "no vxlan": ("vxlan-missing", said("links", "[]")),
    "vxlan down": ("vxlan-down", said("links", json.dumps([{"ifname": "flannel.1", "flags": []}]))),
    "entry": ("vxlan-entry", said("forwarding entries", "")),
    "route": ("pod-route-missing", said("routes", json.dumps([{"dst": "default"}]))),
    "ping": ("pods-unreachable", said("pods of k8s-master", "", rc=1)),
    "10250": ("kubelet-unreachable", said("kubelet of k8s-master", "000", rc=28)),
    "no kube-proxy": ("kube-proxy-missing", lists(lambda f: f["daemonsets"].pop(1))),
    "kube-proxy": ("kube-proxy-failing", said("kube-proxy healthz", "000", rc=7)),
    "no DNS": ("dns-missing", lists(lambda f: f["deployments"].pop(0))),
    "DNS scaled": ("dns-scaled", scaled("kube-system", "coredns")),
    "Corefile": ("dns-corefile", lists(lambda f: f["configmaps"][0]["data"].update(Corefile=".:53 {\n"))),
    "Corefile said": ("dns-corefile", both(
        has("pods", pod("coredns-2", "kube-system", ready=False, labels={"k8s-app": "kube-dns"})),
        log("kube-system/coredns-2/coredns", "/etc/coredns/Corefile:8 - Error during parsing: Unknown directive\n"))),
    "DNS address": ("dns-address", said("kubelet config", "cgroupDriver: systemd\nclusterDNS:\n- 10.0.0.99\nfailSwapOn: false\n")),
    "DNS silent": ("dns-silent", said("DNS", "", rc=1, err="timed out")),
    "claim": ("claim-pending", has("claims", {"metadata": {"name": "c", "namespace": "default"}, "spec": {},
                                              "status": {"phase": "Pending"}})),
    "unregistered": ("node-unregistered", lists(lambda f: f["nodes"].pop(1))),
    "node address": ("node-address",
                     lists(lambda f: f["nodes"][1]["status"]["addresses"][0].update(address="192.168.98.9"))),
    "pressure": ("node-pressure", lists(lambda f: f["nodes"][1]["status"]["conditions"][1].update(status="True"))),
    "not ready": ("node-not-ready", lists(lambda f: f["nodes"][1]["status"]["conditions"][0].update(
        status="Unknown", reason="NodeStatusUnknown", message="the kubelet stopped"))),
    "cordoned": ("node-cordoned", node_with(unschedulable=True)),
    "tainted": ("node-tainted", lambda s: lists(lambda f: (
        f["nodes"][1]["spec"].update(taints=[{"key": "own", "effect": "NoSchedule"}]),
        f["pods"].append(unscheduled("1 node(s) had untolerated taint(s)"))))(s)),
    "too large": ("pod-unscheduled", has("pods", unscheduled("0/2 nodes are available: 2 Insufficient cpu."))),
    "istiod scaled": ("istiod-scaled", scaled("istio-system", "istiod")),
    "istiod gone": ("istiod-missing", lists(lambda f: f["deployments"].pop(1))),
    "istiod not available": ("istiod-unavailable", lists(lambda f: f["deployments"][1]["status"].update(availableReplicas=0))),
    "webhook nowhere": ("webhook-service", has("validating", lab.hook("x", "default", "nowhere"))),
    "webhook's end": ("webhook-service", lists(lambda f: (
        f["endpointslices"].append(lab.ends("slow", "default", ready=False)),
        f["services"].append(lab.service("slow", "default")), f["mutating"].append(lab.hook("x", "default", "slow"))))),
    "webhook's CA": ("webhook-ca", has("mutating", lab.hook("x", "istio-system", "istiod", ca="another"))),
    "injection": ("injection-off", lists(lambda f: f["namespaces"][0]["metadata"].update(labels={}))),
    "refused": ("config-refused", lambda s: s.cluster.answers.update({"proxy default/reviews-1": Answer(DUMP)})),
    "host": ("route-host", has("virtualservices", route(host="reviewz"))),
    "subset": ("route-subset", has("virtualservices", route(host="reviews", subset="v9"))),
    "gateway": ("gateway-selector", has("gateways", {"metadata": {"name": "g", "namespace": "default"},
                                                     "spec": {"selector": {"istio": "nobody"}}})),
    "no gateway": ("route-gateway", has("virtualservices", {"metadata": {"name": "v", "namespace": "default"},
                                                            "spec": {"gateways": ["nowhere"]}})),
    "image": ("image-missing", has("pods", pod("x", ready=False, state=waiting("ImagePullBackOff", "not found")))),
    "configuration": ("container-config", has("pods", pod("x", ready=False, state=waiting("CreateContainerConfigError")))),
    "ends": ("crash-loop", has("pods", pod("x", ready=False, restarts=3, state=waiting("CrashLoopBackOff"), last=ended(1)))),
    "killed": ("out-of-memory", has("pods", pod("x", restarts=3, last=ended(137, "OOMKilled")))),
    "probe": ("probe-failing", lists(lambda f: (
        f["pods"].append(pod("x", restarts=1, last=ended(0))),
        f["warnings"].append(warning("x", "Unhealthy", "Liveness probe failed: refused"))))),
    "mount": ("mount-missing", lists(lambda f: (
        f["pods"].append(pod("x", ready=False, state=waiting("ContainerCreating"))),
        f["warnings"].append(warning("x", "FailedMount", "configmap not found"))))),
    "sandbox fails": ("sandbox-failing", lists(lambda f: (
        f["pods"].append(pod("x", ready=False, state=waiting("ContainerCreating"))),
        f["warnings"].append(warning("x", "FailedCreatePodSandBox", "no such plugin"))))),
    "unready pod": ("pod-not-ready", has("pods", pod("x", ready=False))),
    "quota": ("quota-exceeded", has("deployments", refused("pods x is forbidden: exceeded quota: few"))),
    "webhook refuses": ("webhook-refuses", has("deployments", refused("failed calling webhook x: no endpoints"))),
    "policy": ("pods-refused", has("deployments", refused("violates PodSecurity"))),
    "selector": ("service-selector", has("services", lab.service("s", "default", app="nobody"))),
    "scaled to 0": ("scaled-to-zero", lists(lambda f: (
        f["services"].append(lab.service("s", "default", app="z")), f["deployments"].append(lab.workload("z", "default", 0, 0))))),
    "Elasticsearch": ("store-down", has("statefulsets", lab.workload("elasticsearch", "logging", 1, 0))),
    "shippers": ("shipper-stopped", has("daemonsets", lab.daemons("shipper", "logging", 1))),
    "password": ("shipper-refused", both(
        lists(lambda f: (f["daemonsets"].append(lab.daemons("shipper", "logging")),
                         f["pods"].append(pod("shipper-1", "logging", labels={"app": "shipper"})))),
        log("logging/shipper-1/main", "omelasticsearch: HTTP 401 security_exception\n"))),
    "store away": ("shipper-waiting", both(
        lists(lambda f: (f["daemonsets"].append(lab.daemons("shipper", "logging")),
                         f["pods"].append(pod("shipper-1", "logging", labels={"app": "shipper"})))),
        log("logging/shipper-1/main", "omelasticsearch: connection refused\n"))),
}  # fmt: skip


def test_a_sound_lab_has_nothing_wrong() -> None:
    assert names(sound()) == []


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_found_with_evidence_and_a_fix(case: str) -> None:
    name, change = CASES[case]
    assert name not in names(sound())
    snapshot = sound()
    change(snapshot)
    found = {cause.name: cause for cause in judge(snapshot)}
    assert name in found
    assert found[name].evidence and all(found[name].evidence) and found[name].fix
    assert found[name].layer in LAYERS


def test_each_rule_has_found_something() -> None:
    finding = set()
    for _, change in CASES.values():
        snapshot = sound()
        change(snapshot)
        finding |= {rule for rule in ALL if list(rule(snapshot))}
    assert [rule.__name__ for rule in ALL if rule not in finding] in ([], ["no_lab"], ["no_lab", "no_answer"])


def test_a_cause_comes_before_what_follows_from_it() -> None:
    """A full disk stops containerd, that stops the kubelet; the node is not Ready, and a pod neither."""
    snapshot = sound()
    for change in (
        said("disks", FULL), said("units", units(kubelet="activating/auto-restart", containerd="inactive/dead")),
        said("kubelet healthz", "", rc=7),
        lists(lambda f: (f["nodes"][1]["status"]["conditions"][0].update(status="Unknown", reason="x", message="y"),
                         f["pods"].append(pod("x", ready=False)))),
    ):  # fmt: skip
        change(snapshot)
    found = names(snapshot)
    assert found[:2] == ["disk-full", "containerd-stopped"]
    assert found.index("containerd-stopped") < found.index("kubelet-failing")
    assert found[-2:] == ["node-not-ready", "pod-not-ready"]


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("etcd", ["kube-apiserver-failing", "api-server-silent"]),
        ("rule 8472", ["pods-unreachable", "dns-silent"]),
        ("istiod scaled", ["webhook-service"]),
        ("no kubeconfig", []),
        ("forwarding", ["pods-unreachable"]),
    ],
)
def test_consequences_come_later(case: str, more: list[str]) -> None:
    name, change = CASES[case]
    snapshot = sound()
    change(snapshot)
    for other in more:
        if other in ("pods-unreachable", "dns-silent"):
            CASES[{"pods-unreachable": "ping", "dns-silent": "DNS silent"}[other]][1](snapshot)
    found = names(snapshot)
    assert found[0] == name
    assert set(more) <= set(found[1:])


def test_the_order_is_from_the_ground_up_and_each_cause_stands_once() -> None:
    causes = [
        Cause("c", "workloads", "3"), Cause("d", "machines", "4", follows=True), Cause("b", "kubelet", "2", weight=1),
        Cause("a", "kubelet", "1"), Cause("a", "kubelet", "1"),
    ]  # fmt: skip
    assert [cause.name for cause in ordered(causes)] == ["a", "b", "c", "d"]


def test_what_was_put_right_is_no_cause() -> None:
    old = "2026-11-27T17:00:00Z"
    snapshot = sound()
    last = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": old}}
    lists(lambda f: (f["pods"].append(pod("x", restarts=5, last=last)),
                     f["warnings"].append(warning("x", "Unhealthy", "Liveness probe failed", old))))(snapshot)  # fmt: skip
    said("kubelet log", "E1 failed to load kubelet config file\n")(snapshot)
    snapshot.cluster.answers["proxy default/reviews-1"] = Answer(json.dumps({"configs": [{"dynamic_listeners": [{}]}]}))
    assert names(snapshot) == []


def test_probes_that_fail_only_since_a_container_began_anew_are_no_cause() -> None:
    """As after a machine was restarted: a proxy is asked before it listens."""
    snapshot = sound()
    late = {**warning("x", "Unhealthy", "Startup probe failed: refused"), "firstTimestamp": "2026-11-27T17:59:50Z"}
    last = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": STAMP}}
    lists(lambda f: (f["pods"].append(pod("x", restarts=1, last=last)), f["warnings"].append(late)))(snapshot)
    assert names(snapshot) == []


def test_a_lab_without_a_mesh_or_without_a_pod_network_is_judged_for_what_it_is() -> None:
    bare = objects() | {
        kind: [] for kind in ("mutating", "virtualservices", "gateways", "destinationrules", "mesh roots")
    }
    bare["deployments"] = bare["deployments"][:1]
    for kind in ("pods", "services", "endpointslices"):
        bare[kind] = [
            i
            for i in bare[kind]
            if "istio" not in i["metadata"]["namespace"] and "reviews" not in i["metadata"]["name"]
        ]
    assert names(sound(bare)) == []
    snapshot = sound(bare)
    said("CNI configuration", "")(snapshot)
    assert names(snapshot) == ["cni-config-missing"]


# Reading


class Machine:
    """A host that notes what it is asked, and answers from a table; what is not in it has no output."""

    def __init__(self, name: str = "m", answer: Callable[[str], Result | Exception | str] = lambda text: "") -> None:
        self.name, self.answer, self.ran = name, answer, list[tuple[tuple[str, ...], float]]()
        self.guard = threading.Lock()

    def run(self, argv: Sequence[str], *, check: bool = True, stdin: Any = None, timeout: float = 60.0,
            env: Mapping[str, str] | None = None, secret: bool = False) -> Result:  # fmt: skip
        assert check is False or argv[0] == "podman"
        with self.guard:
            self.ran.append((tuple(argv), timeout))
        found = self.answer(" ".join(argv))
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Result) else Result(tuple(argv), 0, found, "", 0.0, self.name)

    def read(self, path: str) -> str:
        raise AssertionError("files are read by commands with a deadline")

    def write(self, path: str, text: Any, *, mode: int = 0o644) -> None:
        raise AssertionError("a diagnosis writes nothing")

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        raise AssertionError("a diagnosis writes nothing")


READING = ("cat", "date", "df", "ls", "ps", "ip", "bridge", "sysctl", "grep", "journalctl", "systemctl", "iptables-save", "ctr",
           "curl", "busybox", "ping", "openssl", "sh", "kubectl", "podman", "stat")  # fmt: skip
WRITING = re.compile(
    r"\b(rm|mv|cp|tee|install|chmod|chown|mkdir|touch|kill|reboot|apply|delete|patch|create|edit|scale|restart|start|stop|set|add|"
    r"-w|--write|sed|truncate|dd)\b(?!-)"
)
PERMITTED = {
    "systemctl": ("show",), "ip": ("-j",), "bridge": ("fdb", "show"), "busybox": ("nslookup",), "openssl": ("x509", "-noout"),
    "podman": ("ps", "inspect", "info"), "ctr": ("--connect-timeout", "2s", "-n", "k8s.io", "images", "ls"),
}  # fmt: skip


def is_reading(argv: Sequence[str]) -> bool:
    """Whether a command is on the list of those that read: by its program, and by its verb where it could do more."""
    program = Path(argv[0]).name
    words = [word for word in argv[1:] if not word.startswith("--cgroup") and not word.startswith("--runtime")]
    if program not in READING:
        return False
    if program == "kubectl":
        verbs = [word for word in words if not word.startswith("-")]
        envoy = "exec" in words and words[-4:] == ["pilot-agent", "request", "GET", "config_dump"]
        return envoy or (verbs[0] == "get" and "--raw" in words)
    if program == "sysctl":
        return "-w" not in words and not any("=" in word for word in words)
    if program == "sh":
        script = re.sub(r"2>(/dev/null|&1)", "", words[1])
        return ">" not in script and not WRITING.search(script)
    if program == "curl":
        return not {"-X", "-d", "--data", "-T"} & set(words) and (
            "-o" not in words or words[words.index("-o") + 1] == "/dev/null"
        )
    wanted = PERMITTED.get(program, ())
    return words[0] in wanted if program == "podman" else words[: len(wanted)] == list(wanted)


def read(profile: Profile | None = None, *, local: Machine, **machines: Machine) -> Snapshot:
    hosts = {name.replace("_", "-"): ("running", host) for name, host in machines.items()}
    return collection.collect(profile or Profile(), local=local, hosts=hosts)


def api(text: str) -> str:
    """An API server with two proxies that have once refused something, and containers that ended."""
    if text.endswith("config_dump"):
        return DUMP
    if "--raw /readyz" in text:
        return "readyz check passed"
    if "--raw /api/v1/pods " in text:
        return json.dumps({"items": [pod("x", ready=False, restarts=3, last=ended(1)), pod("reviews-1", sidecar=True)]})
    if "/log?" in text:
        return "the last words"
    if "--raw" in text:
        return '{"items": []}'
    if text.startswith("date"):
        return f"{time.time()}\n"
    if "gRPC config" in text:
        return "/var/log/pods/default_reviews-1_uid/istio-proxy/0.log:gRPC config for x rejected\n"
    if text.startswith("ip -j address"):
        return json.dumps([{"ifname": "flannel.1", "addr_info": [{"family": "inet", "local": "10.244.1.0"}]}])
    return ""


def test_nothing_is_asked_but_by_commands_that_read() -> None:
    local, first, node = Machine("here", api), Machine(FIRST, api), Machine(NODE, api)
    snapshot = read(local=local, k8s_master=first, k8s_node1=node)
    ran = [argv for host in (local, first, node) for argv, _ in host.ran]
    assert len(ran) > 80
    assert [argv for argv in ran if not is_reading(argv)] == []
    assert snapshot.cluster.reached
    assert snapshot.cluster.answers["log default/x/main"].out == "the last words"
    assert "config-refused" in names(snapshot)
    assert ("ping", "-c", "2", "-i", "0.3", "-W", "1", "10.244.1.0") in ran


@pytest.mark.parametrize("command", ["rm /x", "systemctl restart kubelet", "sysctl -w a=1", "kubectl delete pod x", "ip link set a up",
                                     "kubectl exec x -- sh", "curl -X POST http://x", "podman stop x", "bridge fdb add x"])  # fmt: skip
def test_the_list_of_reading_commands_refuses(command: str) -> None:
    assert not is_reading(command.split())
    assert not is_reading(["sh", "-c", "echo > /etc/x"]) and not is_reading(["sh", "-c", "rm /x"])


def test_every_question_has_a_deadline() -> None:
    local, first, node = Machine("here", api), Machine(FIRST, api), Machine(NODE, api)
    read(local=local, k8s_master=first, k8s_node1=node)
    assert max(timeout for host in (local, first, node) for _, timeout in host.ran) <= 10


def test_what_hangs_is_evidence_and_the_rest_is_read() -> None:
    def hangs(text: str) -> Exception | str:
        return WaitTimeout(text, 5) if text.startswith(("journalctl", "ctr")) else api(text)

    snapshot = read(local=Machine("here", api), k8s_master=Machine(FIRST, hangs), k8s_node1=Machine(NODE, api))
    assert snapshot.machines[FIRST]["images"].problem == "no answer within 6 s"
    assert snapshot.machines[FIRST]["links"].ok


def test_a_machine_that_hangs_is_asked_one_thing() -> None:
    node = Machine(NODE, lambda text: WaitTimeout(text, 4))
    snapshot = read(local=Machine("here", api), k8s_master=Machine(FIRST, api), k8s_node1=node)
    assert len(node.ran) == 1
    assert "machine-silent" in names(snapshot)


def test_a_machine_that_is_not_reached_is_named() -> None:
    node = Machine(NODE, lambda text: TransportError("k8s-node1 could not be reached: no route"))
    found = judge(read(local=Machine("here", api), k8s_master=Machine(FIRST, api), k8s_node1=node))
    assert next(c for c in found if c.name == "machine-silent").evidence == (
        "k8s-node1 could not be reached: no route",
    )


def test_no_lab_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "states"))

    def empty(text: str) -> Result | str:
        if text.startswith("stat"):
            return "cgroup2fs"
        if text.startswith("cat"):
            return Result(("cat",), 1, "", "No such file", 0.0)
        return "[]" if text.startswith("podman") else ""

    local = Machine("here", empty)
    snapshot = collection.collect(Profile(), local=local)
    assert names(snapshot) == ["no-lab"]
    assert [argv for argv, _ in local.ran if not is_reading(argv)] == []
    assert not (tmp_path / "states").exists()


def test_without_podman_this_is_what_is_said() -> None:
    def broken(text: str) -> Result | str:
        return Result(("podman",), 125, "", "cannot re-exec process", 0.0) if text.startswith("podman") else api(text)

    assert names(collection.collect(Profile(), local=Machine("here", broken)))[0] == "podman-broken"


def test_the_kubeconfigs_key_is_never_kept(tmp_path: Path) -> None:
    key = "c3RhY2tib29rLXBsYW50ZWQta2V5LW9mLWEta3ViZWNvbmZpZw=="
    text = (
        "clusters: [{cluster: {server: 'https://192.168.98.3:6443'}}]\n"
        f"users: [{{user: {{client-key-data: {key}, client-certificate-data: Y2VydA==}}}}]\n"
    )
    local = Machine(
        "here", lambda asked: text if asked.startswith("cat") and asked.endswith("kubeconfig") else api(asked)
    )
    snapshot = read(local=local, k8s_master=Machine(FIRST, api))
    assert snapshot.host["kubeconfig"].out == "https://192.168.98.3:6443"
    assert key not in repr(snapshot)


# What leaves


def test_no_secret_of_the_cluster_is_asked_for() -> None:
    assert not [path for path in cluster_probes.PATHS.values() if "secret" in path.lower() or "token" in path.lower()]
    scripts = " ".join(" ".join(p.argv) for p in machine_probes.of_machine(Profile(), control_plane=True).values())
    assert not re.search(r"\.key\b|admin\.conf|kubelet-client-current\.pem(?!.*openssl)", scripts)


def planted(tmp_path: Path) -> tuple[Diagnosis, list[str]]:
    """A diagnosis full of secrets, of which some have no shape."""
    words = ["Kq7vTr2mWx9pLz4s", "zebra-under-nine-moons"]
    Secret(words[1])
    snapshot = sound()
    said("containerd proxies", f'HTTPS_PROXY="http://user:{words[0]}@proxy:3128"\n')(snapshot)
    said("kubelet log", f"E1 using token abcdef.0123456789abcdef and {words[1]}\n")(snapshot)
    snapshot.machines[NODE].answers["kubelet flags"] = Answer(f"--password={words[0]}")
    item = pod("x")
    item["spec"]["containers"][0]["env"] = [{"name": "SHAPELESS", "value": words[0]}]
    has("pods", item)(snapshot)
    snapshot.cluster.answers["odd"] = Answer(json.dumps({"kind": "SecretList", "items": [{"data": {"a": words[0]}}]}))
    return Diagnosis(judge(snapshot), snapshot), words


def test_a_bundle_is_for_its_owner_and_without_secrets(tmp_path: Path) -> None:
    diagnosis, words = planted(tmp_path)
    path = tmp_path / "b.tar.gz"
    assert support_bundle.write(diagnosis, path) > 40
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path, filter="data")
    assert {member.mode for member in members} == {0o600}
    inside = tmp_path / "stackbook-diagnosis"
    assert secrets_scan.scan([inside], words) == []
    assert "proxy-for-the-inside" in (inside / "diagnosis.txt").read_text()
    assert json.loads((inside / "cluster" / "nodes.json").read_text())["items"][1]["metadata"]["name"] == NODE
    assert "Secrets are not in a support bundle" in (inside / "cluster" / "odd.json").read_text()


def test_a_bundle_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        support_bundle.write(Diagnosis([], sound()), path)
    assert path.read_text() == "mine"


def test_what_is_printed_has_no_secret(tmp_path: Path) -> None:
    diagnosis, words = planted(tmp_path)
    text = "\n".join(diagnosis.lines()) + json.dumps(diagnosis.plain())
    assert not [word for word in words if word in text]
    assert "proxy: http://user:***@proxy:3128" in text


def command(monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, *args: str) -> int:
    monkeypatch.setattr("stackbook.app.diagnose.collect", lambda profile, word: snapshot)
    monkeypatch.setattr(cli, "become_root", lambda options, words: None)
    return cli.main(["diagnose", *args])


def test_the_command_says_that_nothing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, sound()) == 0
    out = capsys.readouterr().out
    assert out.startswith("no problem was found")
    assert [layer for layer in LAYERS if f"  {layer}: " not in out] == []


def test_the_command_names_causes_evidence_and_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = sound()
    CASES["kubelet"][1](snapshot)
    assert command(monkeypatch, snapshot) == 1
    out = capsys.readouterr().out
    assert "1. the kubelet is not running on k8s-node1" in out
    assert "seen: kubelet.service: inactive (dead)" in out
    assert "fix:  echo 'systemctl start kubelet' | stackbook shell k8s-node1" in out
    assert command(monkeypatch, snapshot, "--json") == 1
    assert json.loads(capsys.readouterr().out)["causes"][0]["name"] == "kubelet-stopped"


def test_bad_input_is_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    assert command(monkeypatch, sound(), "--bundle", str(tmp_path / "there")) == 2
    assert command(monkeypatch, sound(), "--bundle", str(tmp_path / "no" / "folder.tar.gz")) == 2
    assert command(monkeypatch, sound(), "--profile", "nowhere") == 2
    assert command(monkeypatch, sound(), "--no-such-option") == 2


def test_what_could_not_be_asked_is_not_called_looked_at() -> None:
    snapshot = sound()
    silent(snapshot)
    rows = {row["layer"]: row["looked at"] for row in layers.looked_at(snapshot)}
    assert rows["mesh"] == "could not be asked"
    assert rows["kubelet"] != "could not be asked"


def test_only_what_a_shipper_has_just_said_is_read() -> None:
    """One that is refused says so every 2 s: what it said minutes ago is over."""
    shipper = {"metadata": {"name": "shipper-1", "namespace": "logging", "labels": {"app": "shipper"}},
               "spec": {"containers": [{"name": "main"}]}, "status": {}}  # fmt: skip
    (path,) = collect_cluster._logs([shipper]).values()
    assert "&sinceSeconds=60" in path
    ended = {"metadata": {"name": "other", "namespace": "default"}, "status": {"containerStatuses": [
        {"name": "main", "ready": False, "lastState": {"terminated": {"exitCode": 1}}}]}}  # fmt: skip
    (path,) = collect_cluster._logs([ended]).values()
    assert "sinceSeconds" not in path
