"""The pictures of the chapters: they show what a lab has, whatever that is, and can be read."""

from __future__ import annotations

import doctest
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from stackbook.analysis import plot_lint
from stackbook.analysis.boxes import Picture
from stackbook.analysis.display import PALETTE
from stackbook.cluster.flannel import Lease
from stackbook.config.namespaces import Namespaces
from stackbook.lessons.flannel import picture as flannel_picture
from stackbook.lessons.istio import picture as istio_picture
from stackbook.lessons.kubeadm import picture as kubeadm_picture
from stackbook.lessons.kubernetes import picture as kubernetes_picture
from stackbook.observability.logs import deploy
from stackbook.observability.logs import picture as logs_picture
from stackbook.observability.metrics import picture as metrics_picture

NODES = {"k8s-master": "192.168.98.3", "k8s-node1": "192.168.98.4"}


def pod(name: str, node: str, *, space: str = "kube-system", ip: str = "", containers: tuple[str, ...] = ("main",),
        annotations: dict[str, str] | None = None, own_address: bool = True, **labels: str) -> dict[str, Any]:  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": space, "labels": labels, "annotations": annotations or {}},
        "spec": {"nodeName": node, "containers": [{"name": part} for part in containers], "hostNetwork": not own_address},
        "status": {"podIP": ip},
    }  # fmt: skip


class Kube:
    """The API server's answers: two nodes, and the pods that a test gives."""

    def __init__(self, *pods: dict[str, Any], objects: dict[str, list[Any]] | None = None) -> None:
        self._pods, self._objects = pods, objects or {}

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}],
             "nodeInfo": {"kubeletVersion": "v1.36.3"}}}
            for name, address in NODES.items()
        ]  # fmt: skip

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        wanted = dict([selector.split("=")]) if selector else {}
        return [p for p in self._pods if namespace in ("", p["metadata"]["namespace"])
                and wanted.items() <= p["metadata"]["labels"].items()]  # fmt: skip

    def json(self, _verb: str, kind: str, *_: str) -> Any:
        return {"items": list(self._pods) if kind == "pods" else self._objects[kind]}


def readable(picture: Picture) -> str:
    assert plot_lint.problems(picture.figure, PALETTE) == []
    return picture.alt


@pytest.mark.parametrize("module", [flannel_picture, metrics_picture])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def static(name: str) -> dict[str, Any]:
    return pod(f"{name}-k8s-master", "k8s-master", annotations={"kubernetes.io/config.mirror": "x"}, component=name)


CONTROL = [static(name) for name in ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")]


def test_02_shows_each_machines_programs() -> None:
    proxies = [pod(f"kube-proxy-{n}", n, **{"k8s-app": "kube-proxy"}) for n in NODES]
    said = readable(kubeadm_picture.cluster(Kube(*CONTROL, *proxies)))  # type: ignore[arg-type]
    assert "k8s-node1 (192.168.98.4), with kubelet (v1.36.3), kube-proxy (a pod) inside" in said
    assert "kube-scheduler to kube-apiserver" in said and "kubelet to kube-apiserver (HTTPS)" in said


def test_02_shows_a_control_plane_that_lacks_a_program() -> None:
    some = [entry for entry in CONTROL if entry["metadata"]["labels"]["component"] not in ("etcd", "kube-scheduler")]
    said = readable(kubeadm_picture.cluster(Kube(*some)))  # type: ignore[arg-type]
    assert "etcd" not in said and "kube-scheduler" not in said and "kube-controller-manager to kube-apiserver" in said


def test_02_shows_a_cluster_whose_control_plane_is_out_of_sight() -> None:
    assert "kube-apiserver" not in readable(kubeadm_picture.cluster(Kube()))  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "words"), [("vxlan", "VXLAN, UDP port 8472"), ("host-gw", "by a route")])
def test_03_shows_the_devices_that_a_machine_has(monkeypatch: pytest.MonkeyPatch, backend: str, words: str) -> None:
    leases = [Lease(node=name, subnet=f"10.244.{number}.0/24", public_ip=address, internal_ip=address, backend=backend, mac="")
              for number, (name, address) in enumerate(NODES.items())]  # fmt: skip
    monkeypatch.setattr(flannel_picture.flannel, "leases", lambda _: leases)
    devices = {
        name: {"eth0": address, **({"flannel.1": "10.244.0.0", "cni0": "10.244.0.1"} if backend == "vxlan" else {})}
        for name, address in NODES.items()
    }
    monkeypatch.setattr(flannel_picture, "addresses", lambda host: devices[host])
    dns = pod("coredns-5c6458f85f-v7g68", "k8s-node1", ip="10.244.1.2")
    said = readable(flannel_picture.network(Kube(dns), {name: name for name in NODES}))  # type: ignore[arg-type]
    assert words in said and "coredns (10.244.1.2)" in said
    assert ("flannel.1" in said) is (backend == "vxlan")


def test_04_shows_a_deployment_and_a_service() -> None:
    pods = [pod(f"myapp-{n}", list(NODES)[n % 2], space="tour", ip=f"10.244.0.{n}", app="myapp") for n in range(3)]
    objects = {
        "replicasets": [{"spec": {"replicas": 3}}, {"spec": {"replicas": 0}}],
        "services": [{"metadata": {"name": "myapp"}, "spec": {"clusterIP": "10.1.2.3", "ports": [{"port": 80}]}}],
    }
    said = readable(kubernetes_picture.application(Kube(*pods, objects=objects), "tour", "myapp"))  # type: ignore[arg-type]
    assert "Service (myapp, 10.1.2.3 port 80)" in said and "k8s-master, with pod 1 (10.244.0.0), pod 3" in said


def test_05_shows_each_pods_proxy_and_what_is_missing() -> None:
    names = [("productpage", "v1"), ("details", "v1"), ("reviews", "v1"), ("reviews", "v2"), ("reviews", "v3")]
    pods = [pod(f"{app}-{version}", "k8s-node1", space="default", containers=("istio-proxy", app), app=app, version=version)
            for app, version in names]  # fmt: skip
    others = [
        pod("istiod-1", "k8s-node1", space="istio-system", app="istiod"),
        pod("gate-1", "k8s-master", space="istio-system", istio="ingressgateway"),
    ]
    lab: Any = SimpleNamespace(kube=Kube(*pods, *others), namespace="default", namespaces=Namespaces())
    said = readable(istio_picture.mesh(lab))
    assert "(missing: ratings-v1)" in said
    assert "productpage-v1 (k8s-node1), with productpage, istio-proxy inside" in said


def test_05_shows_a_mesh_without_bookinfo() -> None:
    lab: Any = SimpleNamespace(kube=Kube(), namespace="default", namespaces=Namespaces())
    assert "missing: details-v1, productpage-v1" in readable(istio_picture.mesh(lab))


def test_10_shows_the_targets_by_job() -> None:
    targets = pd.DataFrame({"job": ["kubelet", "kubelet", "istiod", "pods"], "health": ["up", "down", "up", "up"]})
    said = readable(metrics_picture.scraping(targets, seconds=5))
    assert "kubelet (1 of 2 targets are up)" in said and "istiod (1 target, up)" in said and "every 5 s" in said


def test_12_shows_a_machine_without_a_shipper_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "node", lambda _: "k8s-node1")
    shipper = pod("shipper-1", "k8s-master", space="logging", app="shipper")
    said = readable(logs_picture.shipping(Kube(shipper, pod("a", "k8s-node1"))))  # type: ignore[arg-type]
    assert said.count("reads, and sends many lines at once") == 1
    assert "shipper to Elasticsearch (TLS, password)" in said
