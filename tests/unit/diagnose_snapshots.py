"""A lab in good order, written by hand as a diagnosis would read it; each test breaks one thing of it."""

from __future__ import annotations

import base64
import json
from typing import Any

from stackbook.app.diagnose.snapshot import Answer, Cluster, Machine, Snapshot
from stackbook.config.profile import Profile

NOW = 1795802400.0  # 2026-11-27T18:00:00Z
STAMP = "2026-11-27T17:59:40Z"
ROOT_CA = "-----BEGIN CERTIFICATE-----\nbWVzaA==\n-----END CERTIFICATE-----"
DATES = "notBefore=Nov 27 10:00:00 2026 GMT\nnotAfter=Nov 27 10:00:00 2027 GMT"
PAST = "notBefore=Nov 27 10:00:00 2024 GMT\nnotAfter=Nov 27 10:00:00 2025 GMT"
CONTAINERD = 'version = 2\n  sandbox_image = "lab/pause:3"\n  SystemdCgroup = true\n'
KUBELET = "cgroupDriver: systemd\nclusterDNS:\n- 10.0.0.10\nfailSwapOn: false\n"
CNI = json.dumps({"plugins": [{"type": "flannel"}, {"type": "portmap"}]})


def units(kubelet: str = "active/running", containerd: str = "active/running") -> str:
    blocks = []
    for name, state in (("kubelet", kubelet), ("containerd", containerd)):
        active, sub = state.split("/")
        blocks.append(f"Id={name}.service\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nNRestarts=0\n")
    return "\n".join(blocks)


def machine(name: str, number: int, *, first: bool = False) -> Machine:
    link = {"ifname": "flannel.1", "address": f"aa:00:00:00:00:0{number}", "flags": ["UP"],
            "addr_info": [{"family": "inet", "local": f"10.244.{number}.0", "prefixlen": 32}]}  # fmt: skip
    other = 1 - number
    disks = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda 100 50 50 50% /\n"
    texts = {
        "clock": f"{NOW:.3f}\n",
        "units": units(),
        "kubelet log": "",
        "containerd log": "",
        "kubelet config": KUBELET,
        "kubelet flags": "",
        "kubelet healthz": "ok",
        "containerd config": CONTAINERD,
        "images": "lab/pause:3\nlab/etcd:1\n",
        "processes": "etcd\nkube-apiserver\nkube-controller\nkube-scheduler\nkubelet\n" if first else "kubelet\n",
        "server of kubeconfigs": "/etc/kubernetes/kubelet.conf:    server: https://192.168.98.3:6443\n",
        "certificates": f"== /etc/kubernetes/pki/apiserver.crt\n{DATES}\n" if first else f"== /var/lib/kubelet/pki/kubelet.crt\n{DATES}\n",
        "CNI configuration": CNI,
        "CNI plugins": "bridge\nflannel\nhost-local\nloopback\nportmap\n",
        "subnet.env": f"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.{number}.1/24\n",
        "sysctls": "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n",
        "links": json.dumps([link]),
        "routes": json.dumps([{"dst": f"10.244.{other}.0/24", "dev": "flannel.1"}]),
        "forwarding entries": f"aa:00:00:00:00:0{other} dst 192.168.98.{other + 3} self permanent\n",
        "packet filter": "*filter\n:INPUT ACCEPT [0:0]\n-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP\nCOMMIT\n",
        "kube-proxy healthz": "200",
        "disks": disks,
        "inodes": disks,
        "memory": "MemTotal: 1000 kB\nMemAvailable: 500 kB\n",
        "swap": "Filename Type Size Used Priority\n",
        "hosts": "127.0.0.1 localhost\n192.168.98.3 k8s-master\n192.168.98.4 k8s-node1\n",
        "API server": "[+]etcd ok\nreadyz check passed\n",
        "DNS": "Name: kubernetes.default.svc.cluster.local\nAddress: 10.0.0.1\n",
        "refused by proxies": "",
    }  # fmt: skip
    answers = {key: Answer(out=text, at=NOW) for key, text in texts.items()}
    answers["containerd proxies"] = Answer(rc=1, err="No such file")
    if first:
        answers |= {
            "manifests": Answer("etcd.yaml\nkube-apiserver.yaml\nkube-controller-manager.yaml\nkube-scheduler.yaml\n"),
            "etcd health": Answer('{"health":"true"}'),
            "kube-scheduler healthz": Answer("ok"),
            "kube-controller-manager healthz": Answer("ok"),
            "component logs": Answer("== etcd\nfine\n== kube-apiserver\nfine\n"),
        }
    there = "k8s-node1" if first else "k8s-master"
    answers |= {f"pods of {there}": Answer("2 received"), f"kubelet of {there}": Answer("401")}
    return Machine(name, f"192.168.98.{number + 3}", control_plane=first, answers=answers)


def pod(name: str, namespace: str = "default", *, ready: bool = True, **more: Any) -> dict[str, Any]:
    """A pod; `labels`, `state`, `last`, `restarts` and `sidecar` may be given."""
    state = more.get("state", {"running": {}})
    containers = [{"name": "main", "image": "lab/x:1"}, *([{"name": "istio-proxy"}] if more.get("sidecar") else [])]
    status = {"name": "main", "image": "lab/x:1", "ready": ready, "restartCount": more.get("restarts", 0), "state": state,
              "lastState": more.get("last", {})}  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": more.get("labels", {})},
        "spec": {"nodeName": "k8s-node1", "containers": containers},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                   "containerStatuses": [status]},
    }  # fmt: skip


def node(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {}, "status": {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}}  # fmt: skip


def workload(name: str, namespace: str, replicas: int = 1, ready: int = 1, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas, "template": {"metadata": {"labels": labels or {"app": name}}}},
            "status": {"availableReplicas": ready, "readyReplicas": ready}}  # fmt: skip


def daemons(name: str, namespace: str, wanted: int = 2) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"template": {}},
            "status": {"desiredNumberScheduled": wanted, "numberReady": wanted}}  # fmt: skip


def service(name: str, namespace: str, **selector: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "clusterIP": "10.0.0.10"},
    }


def ends(name: str, namespace: str, *, ready: bool = True) -> dict[str, Any]:
    return {"metadata": {"name": f"{name}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"conditions": {"ready": ready}}]}  # fmt: skip


def hook(name: str, namespace: str, target: str, *, ca: str = ROOT_CA) -> dict[str, Any]:
    where = {"service": {"namespace": namespace, "name": target}, "caBundle": base64.b64encode(ca.encode()).decode()}
    return {"metadata": {"name": name}, "webhooks": [{"name": "hook", "failurePolicy": "Fail", "clientConfig": where}]}


def objects() -> dict[str, list[dict[str, Any]]]:
    """The lists of a cluster with the mesh."""
    return {
        "nodes": [node("k8s-master", "192.168.98.3"), node("k8s-node1", "192.168.98.4")],
        "pods": [
            pod("coredns-1", "kube-system", labels={"k8s-app": "kube-dns"}),
            pod("flannel-1", "kube-flannel", labels={"app": "flannel"}),
            pod("istiod-1", "istio-system", labels={"app": "istiod"}),
            pod("gateway-1", "istio-system", labels={"istio": "ingressgateway"}),
            pod("reviews-1", labels={"app": "reviews"}, sidecar=True),
        ],
        "warnings": [],
        "services": [
            service("kube-dns", "kube-system", **{"k8s-app": "kube-dns"}),
            service("istiod", "istio-system", app="istiod"),
            service("reviews", "default", app="reviews"),
        ],
        "endpointslices": [ends("istiod", "istio-system"), ends("reviews", "default")],
        "namespaces": [{"metadata": {"name": "default", "labels": {"istio-injection": "enabled"}}}],
        "deployments": [workload("coredns", "kube-system", **{"k8s-app": "kube-dns"}), workload("istiod", "istio-system")],
        "daemonsets": [daemons("kube-flannel-ds", "kube-flannel"), daemons("kube-proxy", "kube-system")],
        "statefulsets": [],
        "configmaps": [{"metadata": {"name": "coredns"}, "data": {"Corefile": ".:53 {\n ready\n}\n"}}],
        "flannel": [{"metadata": {"name": "kube-flannel-cfg"}, "data": {"net-conf.json": '{"Network": "10.244.0.0/16"}'}}],
        "mesh roots": [{"metadata": {"name": "istio-ca-root-cert"}, "data": {"root-cert.pem": ROOT_CA + "\n"}}],
        "claims": [],
        "storageclasses": [],
        "quotas": [],
        "mutating": [hook("istio-sidecar-injector", "istio-system", "istiod")],
        "validating": [],
        "virtualservices": [{"metadata": {"name": "reviews", "namespace": "default"}, "spec": {
            "gateways": ["door", "mesh"], "http": [{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]}}],
        "destinationrules": [{"metadata": {"name": "reviews", "namespace": "default"}, "spec": {
            "host": "reviews", "subsets": [{"name": "v1"}]}}],
        "gateways": [{"metadata": {"name": "door", "namespace": "default"}, "spec": {"selector": {"istio": "ingressgateway"}}}],
        "serviceentries": [],
    }  # fmt: skip


def answers(lists: dict[str, list[dict[str, Any]]]) -> dict[str, Answer]:
    found = {name: Answer(out=json.dumps({"items": items})) for name, items in lists.items()}
    return {"readyz": Answer("[+]etcd ok\nreadyz check passed"), **found}


def sound(lists: dict[str, list[dict[str, Any]]] | None = None) -> Snapshot:
    """A lab in which nothing is wrong."""
    machines = {"k8s-master": machine("k8s-master", 0, first=True), "k8s-node1": machine("k8s-node1", 1)}
    host = {
        "podman": Answer("works"),
        "kubeconfig": Answer("https://192.168.98.3:6443"),
        "kubeconfig certificate": Answer(DATES),
        "API server": Answer("readyz check passed"),
        "disks": Answer(machines["k8s-node1"]["disks"].out),
    }
    return Snapshot(Profile(), host=host, machines=machines, cluster=Cluster(answers(lists or objects())), time=NOW)
